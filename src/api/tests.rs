//! The API over a log in memory: requests go through the router, answers are compared with the
//! OpenAPI document on the way.

mod history;
mod isolation;
mod openapi;
mod operations;
mod presence;
mod publish;
mod server;
mod support;
mod survey;
mod users;

//! The rules of DESIGN.md section 3 one by one, end to end: real hubs over a log in memory that does
//! exactly the one thing the rule is about. (`recovery_model` mixes them all at random.)

mod epochs;
mod joins;
mod life;
mod pages;
mod reads;
mod setting;
mod tails;

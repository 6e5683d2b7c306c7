//! The rules of DESIGN.md section 3 one by one, end to end: real hubs over a log in memory that does
//! exactly the one thing the rule is about. (`recovery_model` mixes them all at random.)

mod checks;
mod epochs;
mod joins;
mod life;
mod marks;
mod pages;
mod reads;
mod setting;
mod sweeps;
mod tails;
mod threads;

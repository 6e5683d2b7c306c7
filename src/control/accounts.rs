//! Accounts: signing up and in, passwords, addresses, the second factor.

mod login;
mod password;
mod second_factor;
mod service;
mod sign_up;

pub use login::{Login, SignedIn};
pub use second_factor::Enrolment;
pub use service::{AccountView, Accounts};
pub use sign_up::SignUpRequest;

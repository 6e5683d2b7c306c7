//! What letters say. Plain text, and short.

use super::Letter;
use crate::config::Secret;

/// What a letter is for.
pub(in crate::control) enum Purpose<'a> {
    /// To verify an address of a new account.
    Verify { secret: &'a str },
    /// Somebody signed up with an address that has an account.
    HasAccount,
    /// To set a new password.
    Reset { secret: &'a str },
    /// The password was changed.
    PasswordChanged,
    /// To verify the new address of an account.
    NewEmail { secret: &'a str },
    /// Tells the old address of the new one.
    EmailChanged { new: &'a str },
    /// The second factor was turned on or off.
    SecondFactor { on: bool },
    /// To join a team, or to sign up.
    Invitation {
        team: Option<&'a str>,
        by: &'a str,
        secret: &'a str,
    },
}

/// Writes letters whose links begin with the dashboard's address.
#[derive(Clone, Debug)]
pub(in crate::control) struct Letters {
    url: String,
}

impl Letters {
    pub(in crate::control) fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// What stands behind `#` no server sees, and so none logs it.
    fn link(&self, page: &str, secret: &str) -> String {
        format!("{}/{page}#token={secret}", self.url)
    }

    /// The letter to `to`.
    pub(in crate::control) fn write(&self, to: &str, purpose: &Purpose<'_>) -> Letter {
        let (subject, text) = match purpose {
            Purpose::Verify { secret } => (
                "Verify your e-mail address".to_owned(),
                format!(
                    "Somebody, most likely you, made an account with this address. To verify it, open\n\n{}\n\n\
                     If it was not you, do nothing: without this link nobody can sign in.",
                    self.link("verify-email", secret)
                ),
            ),
            Purpose::HasAccount => (
                "You already have an account".to_owned(),
                format!(
                    "Somebody, perhaps you, tried to make an account with this address, which has one.\n\n\
                     To sign in, or to set a new password, go to\n\n{}",
                    self.url
                ),
            ),
            Purpose::Reset { secret } => (
                "Set a new password".to_owned(),
                format!(
                    "To set a new password for your account, open\n\n{}\n\n\
                     If you did not ask for it, do nothing: your password stays as it is.",
                    self.link("reset-password", secret)
                ),
            ),
            Purpose::PasswordChanged => (
                "Your password was changed".to_owned(),
                format!(
                    "The password of your account was changed, and other sessions were ended.\n\n\
                     If it was not you, set a new one at\n\n{}",
                    self.url
                ),
            ),
            Purpose::NewEmail { secret } => (
                "Verify your new e-mail address".to_owned(),
                format!(
                    "To make this the address of your account, open\n\n{}\n\n\
                     If you did not ask for it, do nothing.",
                    self.link("confirm-email", secret)
                ),
            ),
            Purpose::EmailChanged { new } => (
                "Your e-mail address was changed".to_owned(),
                format!(
                    "The address of your account is {new} now. If it was not you, write to who runs\n\n{}",
                    self.url
                ),
            ),
            Purpose::SecondFactor { on } => {
                let word = if *on { "on" } else { "off" };
                (
                    format!("The second factor was turned {word}"),
                    format!(
                        "The second factor of your account was turned {word}.\n\n\
                         If it was not you, change your password at\n\n{}",
                        self.url
                    ),
                )
            }
            Purpose::Invitation { team, by, secret } => {
                let what = match team {
                    Some(team) => format!("to the team \"{}\"", one_line(team)),
                    None => "to make an account".to_owned(),
                };
                (
                    format!("You are invited {what}"),
                    format!(
                        "{} invites you {what}. To accept, open\n\n{}\n\nIf you do not want to, do nothing.",
                        one_line(by),
                        self.link("invitation", secret)
                    ),
                )
            }
        };
        Letter {
            to: to.to_owned(),
            subject,
            text: Secret::new(format!("Hello,\n\n{text}\n")),
        }
    }
}

/// Names come from people: none may add lines.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_their_secret_behind_the_hash_and_names_no_lines() {
        let letters = Letters::new("https://x.example");
        let letter = letters.write(
            "a@b.example",
            &Purpose::Invitation {
                team: Some("A\nBcc: x"),
                by: "Ann\r\n",
                secret: "abc",
            },
        );
        assert_eq!(letter.subject, "You are invited to the team \"A Bcc: x\"");
        let text = letter.text.expose();
        assert!(
            text.contains("\nhttps://x.example/invitation#token=abc\n"),
            "{text}"
        );
        assert!(text.contains("Ann   invites you"), "{text}");
        let secret = "abc";
        for (purpose, page) in [
            (Purpose::Verify { secret }, "verify-email"),
            (Purpose::Reset { secret }, "reset-password"),
            (Purpose::NewEmail { secret }, "confirm-email"),
        ] {
            let text = letters.write("a@b.example", &purpose).text;
            let link = format!("\nhttps://x.example/{page}#token=abc\n");
            assert!(text.expose().contains(&link), "{}", text.expose());
        }
    }
}

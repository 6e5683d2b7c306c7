use std::net::IpAddr;

use super::{error::ControlError, permission::Permission};

/// The longest user agent that is kept, bytes.
const MAX_USER_AGENT: usize = 200;

/// Where a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, behind trusted proxies too.
    pub ip: Option<IpAddr>,
    user_agent: String,
}

impl Origin {
    /// From an address, with the header `User-Agent`, of which the first 200 bytes are kept.
    pub fn new(ip: Option<IpAddr>, user_agent: &str) -> Self {
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            ip,
            user_agent: cut(user_agent, MAX_USER_AGENT).chars().map(shown).collect(),
        }
    }

    /// The user agent, shortened.
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    pub(super) fn ip_text(&self) -> String {
        self.ip
            .map_or_else(String::new, |ip| ip.to_canonical().to_string())
    }
}

/// The longest beginning of `text` that has at most `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody who has not signed in.
    Anybody,
    /// Who has signed in.
    Session {
        /// The account.
        account: String,
        /// The session.
        session: String,
    },
    /// A personal API token.
    Token {
        /// The account that made it.
        account: String,
        /// The token's id.
        token: String,
        /// What it may do, where its owner may.
        scopes: Vec<Permission>,
        /// The only team it is for, if there is one.
        team: Option<String>,
    },
    /// The operator, or the program itself. May do everything.
    System(&'static str),
}

/// Who asks, and from where: what every service is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub who: Who,
    /// From where.
    pub origin: Origin,
}

impl Actor {
    /// Somebody who has not signed in.
    pub fn anybody(origin: Origin) -> Self {
        Self {
            who: Who::Anybody,
            origin,
        }
    }

    /// The operator (`cli`), or a part of the program.
    pub fn system(name: &'static str) -> Self {
        Self {
            who: Who::System(name),
            origin: Origin::default(),
        }
    }

    /// The account in whose name it asks.
    pub fn account(&self) -> Option<&str> {
        match &self.who {
            Who::Session { account, .. } | Who::Token { account, .. } => Some(account),
            Who::Anybody | Who::System(_) => None,
        }
    }

    /// The account and session of who has signed in: what concerns the account itself is not for tokens.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, or `session_required` for a token.
    pub fn signed_in(&self) -> Result<(&str, &str), ControlError> {
        match &self.who {
            Who::Session { account, session } => Ok((account, session)),
            Who::Token { .. } | Who::System(_) => Err(ControlError::SessionRequired),
            Who::Anybody => Err(ControlError::Unauthenticated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_are_cut_and_have_no_control_characters() {
        let origin = Origin::new(None, &format!("a\nb{}", "ä".repeat(300)));
        assert!(origin.user_agent().starts_with("a bä"));
        assert!(origin.user_agent().len() <= 200);
        assert_eq!(cut("ää", 3), "ä");
        assert_eq!(cut("ab", 9), "ab");
    }

    #[test]
    fn what_concerns_an_account_needs_a_session() {
        let token = Who::Token {
            account: "a".into(),
            token: "t".into(),
            scopes: Vec::new(),
            team: None,
        };
        let actor = |who| Actor {
            who,
            origin: Origin::default(),
        };
        assert_eq!(
            actor(token.clone()).signed_in(),
            Err(ControlError::SessionRequired)
        );
        assert_eq!(actor(token).account(), Some("a"));
        assert_eq!(
            actor(Who::Anybody).signed_in(),
            Err(ControlError::Unauthenticated)
        );
        assert_eq!(Actor::system("cli").account(), None);
    }
}

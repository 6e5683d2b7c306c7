use std::fmt;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as a path: `edge.pong_timeout`, `apps[0].id`. Empty if a file cannot be read as TOML.
    pub key: String,
    /// Where its value comes from (`slipstream.toml:12`, a variable); `None` if from the defaults.
    pub origin: Option<String>,
    /// What is wrong and what to do. Never quotes the value of the key.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", Some(origin)) => write!(f, "{origin}: {}", self.message),
            (key, Some(origin)) => write!(f, "{key} ({origin}): {}", self.message),
            (key, None) => write!(f, "{key}: {}", self.message),
        }
    }
}

/// Everything that is wrong with the configuration, at once. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// `Ok` if there are no problems.
    pub(super) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }

    /// The defaults of the program itself cannot be read.
    pub(super) fn unsound_defaults() -> Self {
        Self(vec![Problem {
            key: String::new(),
            origin: Some("defaults".to_owned()),
            message: "the built-in defaults are unsound; please report this".to_owned(),
        }])
    }

    /// The problems: of single values first, of relations behind them.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a problem")?,
            n => write!(f, "the configuration has {n} problems")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

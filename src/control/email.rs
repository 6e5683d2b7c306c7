use super::error::ControlError;

/// The longest address (RFC 5321, section 4.5.3.1.3), bytes.
const MAX: usize = 254;

/// The one form of an address: trimmed and in lower case, so that nobody has two accounts by a capital letter.
///
/// # Errors
///
/// `invalid_input` if it cannot be one. Whether letters arrive there is for a letter to find out.
pub(super) fn normalise(email: &str) -> Result<String, ControlError> {
    const WRONG: ControlError = ControlError::Invalid {
        field: "email",
        why: "is not an e-mail address",
    };
    let email = email.trim().to_lowercase();
    if email.len() > MAX {
        return Err(WRONG);
    }
    let (local, domain) = email.rsplit_once('@').ok_or(WRONG)?;
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\\\"@".contains(c);
    let dots = |text: &str| !text.starts_with('.') && !text.ends_with('.') && !text.contains("..");
    let local_fits = (1..=64).contains(&local.len()) && local.chars().all(plain) && dots(local);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let domain_fits = domain.contains('.') && domain.split('.').all(label);
    if local_fits && domain_fits {
        Ok(email)
    } else {
        Err(WRONG)
    }
}

/// A name of a person, team or token: 1 to `most` characters on one line.
pub(super) fn name(name: &str, most: usize) -> Result<String, ControlError> {
    let name = name.trim();
    let why = if name.is_empty() {
        "must not be empty"
    } else if name.chars().count() > most {
        "is too long"
    } else if name.chars().any(char::is_control) {
        "must not hold control characters"
    } else {
        return Ok(name.to_owned());
    };
    Err(ControlError::Invalid { field: "name", why })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_have_one_form() {
        for (text, form) in [
            (" Ann@Example.COM ", Some("ann@example.com")),
            ("a.b+c@x-y.example", Some("a.b+c@x-y.example")),
            ("ü@exämple.example", Some("ü@exämple.example")),
            ("a@b", None),
            ("a@@b.example", None),
            ("a b@c.example", None),
            ("a@b..example", None),
            (".a@b.example", None),
            ("a..b@c.example", None),
            ("a@-b.example", None),
            ("@b.example", None),
            ("a@b.example\r\nBcc: x@y.example", None),
            ("Ann <a@b.example>", None),
            ("\"a\"@b.example", None),
            ("", None),
        ] {
            assert_eq!(normalise(text).ok().as_deref(), form, "{text}");
        }
        assert!(normalise(&format!("{}@b.example", "a".repeat(65))).is_err());
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(name(" Ann ", 5).unwrap(), "Ann");
        for wrong in ["", "  ", "abcdef", "a\nb"] {
            assert!(name(wrong, 5).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(text in "\\PC{0,20}@\\PC{0,20}") {
            if let Ok(form) = normalise(&text) {
                prop_assert_eq!(normalise(&form), Ok(form.clone()));
                prop_assert!(form.len() <= 254 && !form.contains(char::is_whitespace));
            }
        }
    }
}

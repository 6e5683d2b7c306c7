//! Questions to who sits before a terminal; from a script, lines of standard input.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::error::Error;
use crate::config::Secret;

/// The longest line, bytes.
const MAX_LINE: usize = 64 << 10;

/// Whether somebody sits there.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// A line.
///
/// # Errors
///
/// There is none.
pub(super) fn line(question: &str) -> Result<String, Error> {
    if is_terminal() {
        ask(question)?;
    }
    let mut line = Vec::new();
    let mut input = io::stdin().lock().take(MAX_LINE as u64);
    input.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(no_line(question));
    }
    while line.ends_with(b"\n") || line.ends_with(b"\r") {
        line.pop();
    }
    text(line)
}

/// A line that is not shown while it is typed.
///
/// # Errors
///
/// There is none, or whoever sits there has given up.
pub(super) fn secret(question: &str) -> Result<Secret, Error> {
    if !is_terminal() {
        return line(question).map(Secret::new);
    }
    let typed = {
        // Before the question: whoever answers quickly is not seen either.
        let _silence = Silence::begin()?;
        ask(question)?;
        typed(io::stdin().lock().bytes())
    };
    // The end of the line was not shown either.
    ask("\n")?;
    match typed? {
        Some(typed) => text(typed).map(Secret::new),
        None => Err(no_line(question)),
    }
}

/// A new secret, twice if it is typed.
///
/// # Errors
///
/// As [`secret`]; or the two are not the same.
pub(super) fn new_secret(question: &str) -> Result<Secret, Error> {
    let first = secret(question)?;
    if is_terminal() && secret("The same again: ")? != first {
        return Err(Error::Usage("the two are not the same".to_owned()));
    }
    Ok(first)
}

/// Whether to do what cannot be undone: `yes` is typed, or was said by `--yes`.
///
/// # Errors
///
/// It is not to be done.
pub(super) fn confirm(what: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !is_terminal() {
        return Err(Error::Usage(format!(
            "{what}? --yes says so where nobody can be asked"
        )));
    }
    match line(&format!("{what}? Type yes: "))?.as_str() {
        "yes" => Ok(()),
        _ => Err(Error::NotConfirmed),
    }
}

/// Questions are not what the command prints.
fn ask(question: &str) -> io::Result<()> {
    let mut out = io::stderr();
    out.write_all(question.as_bytes())?;
    out.flush()
}

fn no_line(question: &str) -> Error {
    Error::Usage(format!(
        "no answer to {:?}",
        question.trim_end_matches([' ', ':'])
    ))
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::Usage("what was typed is not UTF-8".to_owned()))
}

/// What is typed until the end of the line; `None` if it was given up. The terminal hands on each key, so erasing
/// is done here.
fn typed(bytes: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    for byte in bytes {
        match byte? {
            b'\r' | b'\n' => return Ok(Some(line)),
            // Ctrl-C, and Ctrl-D where nothing was typed.
            0x03 => return Ok(None),
            0x04 if line.is_empty() => return Ok(None),
            0x04 => return Ok(Some(line)),
            // Backspace: a character, which may be many bytes.
            0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            0x15 => line.clear(),
            byte if line.len() < MAX_LINE => line.push(byte),
            _ => {}
        }
    }
    Ok((!line.is_empty()).then_some(line))
}

/// A terminal that shows nothing and hands on each key, until this is dropped. Ctrl-C ends no process meanwhile:
/// it would leave the terminal as it is.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed() {
        for (keys, line) in [
            ("abc\n", Some("abc")),
            ("abc\rdef\r", Some("abc")),
            ("\n", Some("")),
            ("ab\u{7f}c\n", Some("ac")),
            ("a\u{e4}\u{7f}\u{8}b\n", Some("b")),
            ("\u{7f}a\n", Some("a")),
            ("abc\u{15}d\n", Some("d")),
            ("abc\u{3}", None),
            ("\u{4}", None),
            ("ab\u{4}", Some("ab")),
            ("ab", Some("ab")),
            ("", None),
        ] {
            let read = typed(keys.bytes().map(Ok)).unwrap();
            assert_eq!(read.as_deref(), line.map(str::as_bytes), "{keys:?}");
        }
    }
}

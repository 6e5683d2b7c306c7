//! Secrets: given in place or by the name of a file, and never shown.

use std::{fs::File, io::Read, path::Path};

use super::{Fields, Kind, Leaf, Lines, Text, Texts, Value, quoted};
use crate::config::Secret;

/// The largest file that is read for a secret: far more than any key has, far less than hurts.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A secret, or nothing if it is empty. `<key>_file` names a file that holds it instead.
pub(in crate::config) struct Hidden;

impl Kind<Option<Secret>> for Hidden {
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<Option<Secret>> {
        let inline: String = <Text as Kind<String>>::read(fields, key)?;
        let text = from_file(fields, key, inline.is_empty()).unwrap_or(inline);
        Some((!text.is_empty()).then(|| Secret::new(text)))
    }

    fn write(value: &Option<Secret>, key: &'static str, out: &mut Lines) {
        out.value(key, quoted(value.as_ref().map_or("", |_| REDACTED)));
    }
}

/// Secrets. `<key>_file` names a file that holds one a line instead.
pub(in crate::config) struct HiddenList;

impl Kind<Vec<Secret>> for HiddenList {
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<Vec<Secret>> {
        let inline: Vec<String> = <Texts as Kind<Vec<String>>>::read(fields, key)?;
        let lines = from_file(fields, key, inline.is_empty());
        let lines = lines.map(|text| {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect()
        });
        Some(lines.unwrap_or(inline).into_iter().map(Secret::new).collect())
    }

    fn write(value: &Vec<Secret>, key: &'static str, out: &mut Lines) {
        out.value(
            key,
            Texts::show(&value.iter().map(|_| REDACTED.to_owned()).collect()),
        );
    }
}

const REDACTED: &str = "[redacted]";

/// The content of the file that `<key>_file` names, without the line end behind it; `None` if it
/// names none, or if something is wrong with it (which is noted).
fn from_file(fields: &mut Fields<'_>, key: &'static str, alone: bool) -> Option<String> {
    let file_key = match key {
        "api_keys" => "api_keys_file",
        "hmac_secret" => "hmac_secret_file",
        "password" => "password_file",
        "sealing_keys" => "sealing_keys_file",
        "secret" => "secret_file",
        "session_secret" => "session_secret_file",
        "operator_key" => "operator_key_file",
        "token" => "token_file",
        "url" => "url_file",
        _ => return None,
    };
    let given = fields.given(file_key)?;
    let path = match &given.value {
        Value::Text(path) if path.is_empty() => return None,
        Value::Text(path) => path,
        _ => {
            fields.problem(file_key, given, "must be the path of a file, in quotes");
            return None;
        }
    };
    if !alone {
        fields.problem(
            file_key,
            given,
            format!("stands beside {key}; keep one of the two"),
        );
        return None;
    }
    match read(Path::new(path)) {
        Ok(text) if text.trim().is_empty() => {
            fields.problem(file_key, given, "names a file that is empty");
            None
        }
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(why) => {
            fields.problem(
                file_key,
                given,
                format!("names a file that cannot be read: {why}"),
            );
            None
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

//! Changing an app as a document.

use std::{
    env, fs,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::Command,
};

use serde_json::{Map, Value};

use super::error::Error;
use crate::random;

/// What can be changed of an app.
const FIELDS: [&str; 5] = ["name", "region", "plan", "flags", "settings"];

/// What can be changed of this app.
pub(super) fn document(app: &Value) -> Value {
    let fields = FIELDS.iter().filter_map(|field| {
        let value = app.get(field)?.clone();
        Some(((*field).to_owned(), value))
    });
    Value::Object(fields.collect())
}

/// A JSON object.
///
/// # Errors
///
/// It is none.
pub(super) fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// What is to be sent so that `before` becomes `after`; what `after` does not name stays. `None` if nothing is.
///
/// # Errors
///
/// It names what cannot be changed.
pub(super) fn change(before: &Value, after: &Value) -> Result<Option<Value>, String> {
    let mut change = Map::new();
    for (field, value) in after.as_object().into_iter().flatten() {
        if !FIELDS.contains(&field.as_str()) {
            return Err(format!(
                "{field}: cannot be changed; there are {}",
                FIELDS.join(", ")
            ));
        }
        if before.get(field) != Some(value) {
            change.insert(field.clone(), value.clone());
        }
    }
    Ok((!change.is_empty()).then_some(Value::Object(change)))
}

/// Does `field=value` to a document.
///
/// # Errors
///
/// There is no such field, or it does not take this.
pub(super) fn set(document: &mut Value, assignment: &str) -> Result<(), String> {
    let (field, text) = assignment
        .split_once('=')
        .ok_or_else(|| format!("--set {assignment}: FIELD=VALUE"))?;
    match field {
        "name" | "region" => document[field] = text.into(),
        "plan" => document[field] = (!text.is_empty()).then_some(text).into(),
        "flags" => {
            let flags = text.split(',').filter(|flag| !flag.is_empty());
            document[field] = flags.collect::<Vec<_>>().into();
        }
        _ => {
            let Some(path) = field.strip_prefix("settings.") else {
                let why = "there are name, region, plan, flags and settings.…";
                return Err(format!("--set {field}: {why}"));
            };
            // What is no JSON is text, so that 30s needs no quotes.
            let value = match text {
                "" => None,
                text => Some(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
            };
            put(&mut document["settings"], path, value).map_err(|why| format!("--set {field}: {why}"))?;
        }
    }
    Ok(())
}

fn put(place: &mut Value, path: &str, value: Option<Value>) -> Result<(), String> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    let next = match place {
        Value::Object(object) => match (rest, &value) {
            (None, None) => {
                object.remove(name);
                return Ok(());
            }
            _ => object.entry(name).or_insert(Value::Null),
        },
        Value::Array(items) => {
            let index = name.parse::<usize>().ok();
            let item = index.and_then(|index| items.get_mut(index));
            item.ok_or_else(|| format!("{name} is no number of an item that is there"))?
        }
        _ => return Err(format!("there is no {name} in what is no object")),
    };
    match (rest, value) {
        (Some(rest), value) => put(next, rest, value),
        (None, Some(value)) => {
            *next = value;
            Ok(())
        }
        (None, None) => Err("an item of a list cannot be removed so".to_owned()),
    }
}

/// A text in an editor: a file that is gone when this is, unless it is kept.
pub(super) struct Draft {
    path: PathBuf,
    editor: String,
    kept: bool,
}

impl Draft {
    /// Writes the text where an editor finds it.
    ///
    /// # Errors
    ///
    /// There is no editor, or no place.
    pub(super) fn begin(text: &str) -> Result<Self, Error> {
        let editor = ["VISUAL", "EDITOR"].iter().filter_map(|name| env::var(name).ok());
        let editor = editor.into_iter().find(|editor| !editor.trim().is_empty());
        let editor = editor.ok_or_else(|| {
            Error::Usage("set EDITOR, or say what is to be changed by --file, --settings or --set".to_owned())
        })?;
        let path = env::temp_dir().join(format!("slipstream-{}.json", random::name(16)));
        let mut open = OpenOptions::new();
        let file = open.write(true).create_new(true).mode(0o600).open(&path);
        let draft = Self {
            path,
            editor,
            kept: false,
        };
        let written = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
        written.map_err(|source| draft.error(source))?;
        Ok(draft)
    }

    /// Runs the editor, and reads what it has left.
    ///
    /// # Errors
    ///
    /// It fails.
    pub(super) fn edited(&self) -> Result<String, Error> {
        // As git does it: the variable may have arguments.
        let run = Command::new("sh")
            .arg("-c")
            .arg(format!("{} \"$1\"", self.editor))
            .arg("sh")
            .arg(&self.path)
            .status();
        match run {
            Ok(status) if status.success() => {
                fs::read_to_string(&self.path).map_err(|source| self.error(source))
            }
            Ok(status) => Err(Error::Editor(format!("the editor ended with {status}"))),
            Err(error) => Err(Error::Editor(format!("the editor does not start: {error}"))),
        }
    }

    /// Leaves the file there, and says so beside the error.
    pub(super) fn keep(mut self, error: Error) -> Error {
        self.kept = true;
        Error::Kept {
            error: Box::new(error),
            path: self.path.clone(),
        }
    }

    fn error(&self, source: io::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // It is in the folder for such files.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app() -> Value {
        json!({"id": "shop", "name": "Shop", "region": "", "plan": "big", "flags": [], "version": 3,
               "settings": {"anonymous": true, "namespaces": [{"name": ""}]}})
    }

    #[test]
    fn only_what_differs_is_sent() {
        let before = document(&app());
        assert_eq!(before.get("id"), None);
        assert_eq!(change(&before, &before), Ok(None));
        assert_eq!(change(&before, &json!({})), Ok(None));
        let mut after = before.clone();
        after["name"] = "Store".into();
        after["plan"] = Value::Null;
        assert_eq!(
            change(&before, &after),
            Ok(Some(json!({"name": "Store", "plan": null})))
        );
        assert!(change(&before, &json!({"id": "x"})).is_err());
    }

    #[test]
    fn one_thing_is_set() {
        for (assignment, field, value) in [
            ("name=a=b", "/name", json!("a=b")),
            ("region=", "/region", json!("")),
            ("plan=", "/plan", json!(null)),
            ("plan=small", "/plan", json!("small")),
            ("flags=", "/flags", json!([])),
            ("flags=a,b", "/flags", json!(["a", "b"])),
            ("settings.anonymous=false", "/settings/anonymous", json!(false)),
            (
                "settings.limits.publish_rate=5",
                "/settings/limits/publish_rate",
                json!(5),
            ),
            ("settings.limits.age=30s", "/settings/limits/age", json!("30s")),
            (
                "settings.namespaces.0.history=std",
                "/settings/namespaces/0/history",
                json!("std"),
            ),
        ] {
            let mut document = document(&app());
            set(&mut document, assignment).unwrap();
            assert_eq!(document.pointer(field), Some(&value), "{assignment}");
        }
        let mut removed = document(&app());
        set(&mut removed, "settings.anonymous=").unwrap();
        assert_eq!(removed["settings"], json!({"namespaces": [{"name": ""}]}));
    }

    #[test]
    fn what_cannot_be_set() {
        for assignment in [
            "name",
            "id=x",
            "settings=x",
            "settings.anonymous.x=1",
            "settings.namespaces.1.name=x",
            "settings.namespaces.x.name=x",
            "settings.namespaces.0=",
        ] {
            let mut document = document(&app());
            assert!(set(&mut document, assignment).is_err(), "{assignment}");
        }
    }

    #[test]
    fn what_is_no_object() {
        for text in ["", "[]", "1", "{", "{} x"] {
            assert!(object(text).is_err(), "{text}");
        }
    }
}

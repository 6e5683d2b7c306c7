use std::collections::HashSet;

use serde_json::{Number, Value};

/// Whether no two items are equal, as JSON Schema has it: by value, so that 1 and 1.0 are.
///
/// Each is written down so that equal ones are alike, and looked up by a hash that nobody can foresee: values
/// chosen to have one hash, or to begin alike, cost no more than others.
pub(super) fn is_unique(items: &[Value]) -> bool {
    let mut seen = HashSet::with_capacity(items.len());
    items.iter().all(|item| {
        let mut written = Vec::new();
        write(item, &mut written);
        seen.insert(written)
    })
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(b'n'),
        Value::Bool(value) => out.push(if *value { b't' } else { b'f' }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            items.iter().for_each(|item| write(item, out));
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in members {
                write_text(name, out);
                write(value, out);
            }
            out.push(b'}');
        }
    }
}

/// With its length in front: what follows is not taken for a part of it.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A whole number by its value, whatever it was written as.
fn write_number(number: &Number, out: &mut Vec<u8>) {
    /// Beyond them the conversion is not exact.
    const WHOLE: std::ops::Range<f64> = -1.0e38..1.0e38;
    let whole = match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), ..) => Ok(i128::from(whole)),
        (_, Some(whole), _) => Ok(i128::from(whole)),
        (.., Some(value)) if value.fract() == 0.0 && WHOLE.contains(&value) => Ok(value as i128),
        (.., value) => Err(value.unwrap_or_default()),
    };
    match whole {
        Ok(whole) => {
            out.push(b'i');
            out.extend_from_slice(&whole.to_le_bytes());
        }
        Err(value) => {
            out.push(b'd');
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_equal_is_not_unique() {
        for (items, unique) in [
            (json!([]), true),
            (json!([1, 2, 1.5, "1", true, null, [1], {"a": 1}]), true),
            (json!([1, 1.0]), false),
            (json!([0, -0.0]), false),
            (json!([1e300, 1e300]), false),
            (json!([1e300, 1e301]), true),
            (json!([1.5, 1.5]), false),
            (json!([u64::MAX, 18_446_744_073_709_551_616.0]), true),
            (json!([1u64 << 63, 9_223_372_036_854_775_808.0]), false),
            (json!([i64::MIN, -9_223_372_036_854_775_808.0]), false),
            (json!([true, 1]), true),
            (json!([false, null]), true),
            (json!([{"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}]), false),
            (json!([[[1], 2], [1, [2]], [[], [1, 2]], [1, 2]]), true),
            (json!([["a", "b"], ["ab"], ["", "ab"]]), true),
            (json!([{"a": {"b": 1}}, {"a": {}, "b": 1}]), true),
        ] {
            assert_eq!(is_unique(items.as_array().unwrap()), unique, "{items}");
        }
    }
}

use std::fmt::Write as _;

use super::{
    calendar,
    query::{Namespace, Row},
};
use crate::telemetry::Measure;

/// Rows as CSV (RFC 4180: CRLF, a header first), a column for each measure. What a tenant has named is never
/// a formula to a program that opens it: a name that could be one has a `'` in front.
pub fn write_csv(rows: &[Row]) -> String {
    let mut out = String::from("start,scope,namespace,peak_connections");
    for measure in Measure::ALL {
        out.push(',');
        out.push_str(measure.as_str());
    }
    out.push_str("\r\n");
    for row in rows {
        let (scope, name) = match &row.namespace {
            Namespace::All => ("app", ""),
            Namespace::Named(name) => ("namespace", name.as_str()),
            Namespace::Others => ("others", ""),
        };
        out.push_str(&calendar::rfc3339(row.start_ms));
        let _ = write!(out, ",{scope},{},{}", field(name), row.peak_connections);
        for measure in Measure::ALL {
            // Writing into a string cannot fail.
            let _ = write!(out, ",{}", row.get(*measure));
        }
        out.push_str("\r\n");
    }
    out
}

/// A text as a field.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\r', '\n', '\'', ';', '\t', ' ']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_and_never_a_formula() {
        for (text, expected) in [
            ("", ""),
            ("chat", "chat"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("x=1", "x=1"),
            ("a\r\nb", "\"a\r\nb\""),
        ] {
            assert_eq!(field(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_row_has_a_column_for_each_measure() {
        let row = |namespace| Row {
            start_ms: 1_795_967_640_000,
            namespace,
            counts: [("messages_in".to_owned(), 3), ("webhooks".to_owned(), 1)].into(),
            peak_connections: 7,
        };
        let csv = write_csv(&[
            row(Namespace::All),
            row(Namespace::Named("=x".to_owned())),
            row(Namespace::Others),
        ]);
        assert_eq!(
            csv,
            "start,scope,namespace,peak_connections,connection_ms,connections_opened,messages_in,bytes_in,\
             messages_out,bytes_out,history_reads,recoveries,api_calls,pushes,webhooks\r\n\
             2026-11-29T15:54:00Z,app,,7,0,0,3,0,0,0,0,0,0,0,1\r\n\
             2026-11-29T15:54:00Z,namespace,\"'=x\",7,0,0,3,0,0,0,0,0,0,0,1\r\n\
             2026-11-29T15:54:00Z,others,,7,0,0,3,0,0,0,0,0,0,0,1\r\n"
        );
    }
}

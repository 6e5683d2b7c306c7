//! The least of HTTP/1.1 that posting publications over keep-alive needs.

use std::io::Write as _;

use memchr::memmem;

use crate::bench::{args::Api, endpoint::Endpoint};

/// Appends the request that posts `data` to `channel`.
pub(in crate::bench) fn write_publish(
    out: &mut Vec<u8>,
    server: &Endpoint,
    api: Api,
    api_key: &str,
    channel: &str,
    data: &[u8],
) {
    let (path, before) = match api {
        Api::Centrifugo => (
            "/api/publish".to_owned(),
            format!(r#"{{"channel":"{channel}","data":"#),
        ),
        Api::Rest => (
            format!("/v1/channels/{channel}/publications"),
            r#"{"data":"#.to_owned(),
        ),
    };
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: {api_key}\r\nAuthorization: Bearer {api_key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{before}",
        server.host,
        before.len() + data.len() + 1
    );
    out.extend_from_slice(data);
    out.push(b'}');
}

/// A response that has arrived whole.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bench) struct Response<'a> {
    pub(in crate::bench) status: u16,
    pub(in crate::bench) body: &'a [u8],
    /// How many bytes it took.
    pub(in crate::bench) len: usize,
}

impl Response<'_> {
    /// Whether the publication was accepted. Centrifugo's API answers 200 also for errors.
    pub(in crate::bench) fn accepted(&self) -> bool {
        (200..300).contains(&self.status) && !self.body.starts_with(b"{\"error\"")
    }
}

/// Reads the response at the start of `bytes`. `Ok(None)` until all of it is there.
///
/// A chunked one is taken to end with the bytes: there is never more than one on its way.
pub(in crate::bench) fn parse(bytes: &[u8]) -> Result<Option<Response<'_>>, &'static str> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let start = head + 4;
    let head = std::str::from_utf8(&bytes[..head]).map_err(|_| "a response head that is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or("a response without a status")?;
    let mut length = None;
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(
                value
                    .trim()
                    .parse::<usize>()
                    .map_err(|_| "a content-length that is no number")?,
            );
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        }
    }
    let end = match length {
        Some(length) => start + length,
        None if chunked && bytes[start..].ends_with(b"0\r\n\r\n") => bytes.len(),
        None if chunked => return Ok(None),
        None if status == 204 => start,
        None => return Err("a response without a length"),
    };
    Ok(bytes.get(start..end).map(|body| Response {
        status,
        body,
        len: end,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_whole_or_waited_for() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"result\":{}}HTTP";
        let response = parse(ok).unwrap().unwrap();
        assert_eq!(
            (response.status, response.body, response.len),
            (200, &b"{\"result\":{}}"[..], ok.len() - 4)
        );
        assert!(response.accepted());
        for cut in 0..ok.len() - 4 {
            assert_eq!(parse(&ok[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn refusals_are_seen() {
        for (text, accepted) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"error\":{}}",
                false,
            ),
            (
                "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
                false,
            ),
            (
                "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ] {
            assert_eq!(
                parse(text.as_bytes()).unwrap().unwrap().accepted(),
                accepted,
                "{text}"
            );
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let server = "http://127.0.0.1:1".parse().unwrap();
        for (api, line) in [
            (Api::Centrifugo, "POST /api/publish HTTP/1.1"),
            (Api::Rest, "POST /v1/channels/a:b/publications HTTP/1.1"),
        ] {
            let mut out = Vec::new();
            write_publish(&mut out, &server, api, "k", "a:b", b"{}");
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(line));
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}

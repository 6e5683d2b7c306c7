//! `POST /api`: the older form of the server API, one command on a line.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Call, bad_request,
    batch::too_much,
    command::{Command, run},
    error::ServerError,
    json_response,
};
use crate::{
    api::{ApiState, extract::object, input::MAX_ITEMS},
    protocol::{ErrorCode, json},
};

/// Methods by number, as the older form knows them.
const METHODS: [&str; 13] = [
    "publish",
    "broadcast",
    "unsubscribe",
    "disconnect",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "rpc",
    "subscribe",
    "refresh",
];

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    id: u32,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// Commands line by line
///
/// The older form: `{"id":7,"method":"publish","params":{..}}` on each line, answered line by line
/// with `{"id":7,"result":{..}}` or `{"id":7,"error":{..}}`. At most 1,000 lines.
#[utoipa::path(
    post, path = "/api", operation_id = "server_legacy", tag = "server API",
    params(("X-App" = Option<String>, Header, description = "Must be the key's app")),
    request_body(content = String, content_type = "application/json"),
    responses(
        (status = 200, description = "A reply on each line", body = String, content_type = "application/json"),
        (status = 400, description = "Not readable", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one"),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large"),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(in crate::api) async fn legacy(State(state): State<ApiState>, Call { app, body, .. }: Call) -> Response {
    // All lines are read before the first is done: what cannot be read does nothing.
    let mut lines = Vec::new();
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
    {
        match object::<Line<'_>>(line) {
            Ok(line) if lines.len() < MAX_ITEMS => lines.push(line),
            _ => return bad_request(),
        }
    }
    if lines.is_empty() {
        return bad_request();
    }
    let mut answer = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            answer.push(b'\n');
        }
        let params = line.params.map_or(&b"{}"[..], |params| params.get().as_bytes());
        let done = if answer.len() > state.max_answer_bytes {
            Err(too_much(&state, &app))
        } else {
            match Command::read(&method(line.method), params) {
                Ok(command) => run(&state, &app, command, &body).await,
                Err(_) => Err(ErrorCode::BadRequest.into()),
            }
        };
        write_reply(line.id, done, &mut answer);
    }
    json_response(answer)
}

fn write_reply(id: u32, done: Result<Vec<u8>, ServerError>, out: &mut Vec<u8>) {
    out.push(b'{');
    if id > 0 {
        out.extend_from_slice(br#""id":"#);
        json::push_u64(out, id.into());
        out.push(b',');
    }
    match done {
        Ok(result) => {
            out.extend_from_slice(br#""result":"#);
            out.extend_from_slice(&result);
        }
        Err(error) => {
            out.extend_from_slice(br#""error":"#);
            error.write(out);
        }
    }
    out.push(b'}');
}

/// A method by its name, in any case, or by its number; what is neither is no method's name.
fn method(raw: Option<&RawValue>) -> String {
    let text = raw.map_or("", RawValue::get);
    let by_number = text.parse().ok().and_then(|number: usize| METHODS.get(number));
    by_number.map_or_else(
        || text.trim_matches('"').to_ascii_lowercase(),
        |name| (*name).to_owned(),
    )
}

//! Callers of the control API. Each answer is held to what the OpenAPI document says of it.

use std::{net::SocketAddr, sync::OnceLock};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    edge::Builder,
    http::{Response, send},
    within,
};

/// The operator's key.
pub(crate) const OPERATOR: &str = "the-operator-key-of-the-tests-of-slipstream";

/// What everybody's password is.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// What access tokens are signed with.
pub(crate) const SESSION_SECRET: &str = "the-session-secret-of-the-tests-of-slipstream";

/// What secrets are sealed with.
pub(crate) const SEALING: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// What a node with the control role needs, over the store at `url`.
pub(crate) fn with_control(builder: Builder, url: &str) -> Builder {
    builder
        .set("store.url", url)
        .set("tenants.sealing_keys", SEALING)
        .set("control.operator_key", OPERATOR)
        .set("control.session_secret", SESSION_SECRET)
        .set("control.public_url", "http://console.example")
        .set("control.password_memory", "8KiB")
        .set("control.password_passes", "1")
        .set("control.account_rate", "10000")
        .set("control.address_rate", "10000")
}

/// Somebody at a node's door.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) addr: SocketAddr,
    bearer: String,
}

impl Caller {
    /// The operator.
    pub(crate) fn operator(addr: SocketAddr) -> Self {
        Self::with(addr, OPERATOR)
    }

    /// Who shows this.
    pub(crate) fn with(addr: SocketAddr, bearer: &str) -> Self {
        Self {
            addr,
            bearer: bearer.to_owned(),
        }
    }

    /// Somebody with a new account, who has signed in.
    pub(crate) async fn person(addr: SocketAddr, name: &str) -> Self {
        let email = format!("{name}@x.example");
        let account = json!({"email": email, "name": name, "password": PASSWORD});
        let made = Self::operator(addr).call("POST", "/v1/accounts", &account).await;
        assert_eq!(made.status, 201, "{made:?}");
        Self::login(addr, &email).await
    }

    /// Somebody who signs in.
    pub(crate) async fn login(addr: SocketAddr, email: &str) -> Self {
        let login = json!({"email": email, "password": PASSWORD});
        let session = Self::with(addr, "")
            .call("POST", "/v1/auth/login", &login)
            .await
            .expect(200);
        Self::with(addr, session["access_token"].as_str().unwrap())
    }

    /// The same at another node.
    pub(crate) fn at(&self, addr: SocketAddr) -> Self {
        Self { addr, ..self.clone() }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &Value) -> Response {
        self.call_with(method, path, &[], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.call("GET", path, &Value::Null).await
    }

    /// With headers besides. A body that is null is none.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response {
        let authorization = format!("Bearer {}", self.bearer);
        let mut all = headers.to_vec();
        if !self.bearer.is_empty() {
            all.push(("Authorization", &authorization));
        }
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = send(self.addr, method, path, &all, &body).await;
        let answer = answer.unwrap_or_else(|| panic!("{method} {path}: no answer"));
        assert!(
            documented(method, path, answer.status),
            "{method} {path}: {} is not documented: {}",
            answer.status,
            answer.body
        );
        answer
    }

    /// Sends a request, and closes the connection before there is an answer.
    pub(crate) async fn send_and_leave(&self, method: &str, path: &str, body: &Value) {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.bearer,
            body.len()
        );
        let mut stream = within(TcpStream::connect(self.addr)).await.unwrap();
        within(stream.write_all(request.as_bytes())).await.unwrap();
        // Time for it to begin, and to be somewhere in the middle.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }

    /// A team of one's own; its id.
    pub(crate) async fn team(&self, name: &str) -> String {
        let team = self
            .call("POST", "/v1/teams", &json!({"name": name}))
            .await
            .expect(201);
        team["id"].as_str().unwrap().to_owned()
    }

    /// An app of a team, open to everybody.
    pub(crate) async fn app(&self, team: &str, id: &str) -> Value {
        let app = json!({"id": id, "name": id, "settings": settings()});
        let path = format!("/v1/teams/{team}/apps");
        self.call("POST", &path, &app).await.expect(201)
    }

    /// A key of an app: its id and its text.
    pub(crate) async fn key(&self, app: &str, signs: bool) -> (String, String) {
        let path = format!("/v1/apps/{app}/keys");
        let wanted = json!({"name": "backend", "signs": signs});
        let key = self.call("POST", &path, &wanted).await.expect(201);
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }
}

impl Response {
    /// The body, if the status is as expected.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Status and code of an error.
    pub(crate) fn error(&self) -> (u16, &str) {
        (
            self.status,
            self.body["error"]["code"].as_str().unwrap_or_default(),
        )
    }
}

/// Settings of an app that everybody may use.
pub(crate) fn settings() -> Value {
    json!({
        "anonymous": true,
        "namespaces": [{"name": "", "subscribe": "anyone", "publish": "anyone", "history": "std", "recovery": true}],
    })
}

/// The document.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_str(&slipstream::api::document()).unwrap())
}

/// Every operation of the control plane: method, path, and whether it is for everybody.
pub(crate) fn operations() -> Vec<(String, String, bool)> {
    const TAGS: [&str; 7] = [
        "sign-in", "account", "teams", "audit", "apps", "plans", "operator",
    ];
    let paths = document()["paths"].as_object().unwrap();
    let mut all = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            if TAGS.contains(&operation["tags"][0].as_str().unwrap()) {
                let open = !operation["security"].is_array();
                all.push((method.to_uppercase(), path.clone(), open));
            }
        }
    }
    all
}

fn documented(method: &str, path: &str, status: u16) -> bool {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (parts, wanted): (Vec<_>, Vec<_>) = (path.split('/').collect(), template.split('/').collect());
        parts.len() == wanted.len()
            && parts
                .iter()
                .zip(&wanted)
                .all(|(part, wanted)| part == wanted || wanted.starts_with('{'))
    };
    let paths = document()["paths"].as_object().unwrap();
    let found = paths.get(path).or_else(|| {
        let mut templates = paths.iter();
        templates.find(|(template, _)| fits(template)).map(|(_, it)| it)
    });
    let operation = found.and_then(|path| path.get(method.to_lowercase()));
    match operation {
        Some(operation) => operation["responses"].get(status.to_string()).is_some(),
        None => matches!(status, 404 | 405),
    }
}

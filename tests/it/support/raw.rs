use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::{token, within};

/// A client that says what it is told to, and keeps what it hears.
pub(crate) struct Raw {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) heard: Vec<Value>,
    pub(crate) client: String,
    last_id: u32,
}

impl Raw {
    /// Connects; without a user anonymously.
    pub(crate) async fn connect(addr: SocketAddr, user: &str) -> Self {
        let url = format!("ws://{addr}/connection/websocket");
        let (socket, _) = within(tokio_tungstenite::connect_async(url)).await.unwrap();
        let mut raw = Self {
            socket,
            heard: Vec::new(),
            client: String::new(),
            last_id: 0,
        };
        let request = match user {
            "" => json!({}),
            user => json!({ "token": token::token(&json!({ "sub": user, "info": { "name": user } })) }),
        };
        let reply = raw.command(json!({ "connect": request })).await;
        raw.client = reply["connect"]["client"].as_str().unwrap().to_owned();
        raw
    }

    /// Connects and is a member of `here:a`.
    pub(crate) async fn member(addr: SocketAddr, user: &str) -> Self {
        let mut raw = Self::connect(addr, user).await;
        let reply = raw.subscribe("here:a").await;
        assert!(reply["error"].is_null(), "{reply}");
        raw
    }

    /// Subscribes, and wants to hear of joins and leaves; the reply.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Value {
        self.command(json!({ "subscribe": { "channel": channel, "join_leave": true } }))
            .await
    }

    /// Sends a command; its reply.
    pub(crate) async fn command(&mut self, mut command: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        command["id"] = id.into();
        let message = Message::text(command.to_string());
        within(self.socket.send(message)).await.unwrap();
        loop {
            let heard = self.hear().await;
            if heard["id"] == id {
                return heard;
            }
            self.heard.push(heard);
        }
    }

    /// Sends a command that has no reply.
    pub(crate) async fn say(&mut self, command: Value) {
        let message = Message::text(command.to_string());
        within(self.socket.send(message)).await.unwrap();
    }

    /// The code that the server closes with.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match within(self.socket.next()).await.unwrap().unwrap() {
                Message::Close(Some(frame)) => return frame.code.into(),
                _ => continue,
            }
        }
    }

    async fn hear(&mut self) -> Value {
        loop {
            let message = within(self.socket.next()).await.unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let mut lines = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            let first = lines.next().unwrap();
            // One reply a message is the rule; pushes that came with it are kept.
            for more in lines {
                self.heard.push(more);
            }
            return first;
        }
    }

    /// The next push of this kind: who it is of.
    pub(crate) async fn next(&mut self, kind: &str) -> Value {
        loop {
            let at = self.heard.iter().position(|heard| !heard["push"][kind].is_null());
            if let Some(at) = at {
                return self.heard.remove(at)["push"][kind]["info"].take();
            }
            let heard = self.hear().await;
            self.heard.push(heard);
        }
    }

    /// Connections and users of a channel.
    pub(crate) async fn stats(&mut self, channel: &str) -> (u64, u64) {
        let reply = self
            .command(json!({ "presence_stats": { "channel": channel } }))
            .await;
        let stats = &reply["presence_stats"];
        let count = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("{reply}"));
        (count("num_clients"), count("num_users"))
    }

    /// Asks until there are as many connections and users; a node that does not answer is waited for.
    pub(crate) async fn sees(&mut self, channel: &str, expected: (u64, u64)) {
        let asking = async {
            loop {
                let reply = self
                    .command(json!({ "presence_stats": { "channel": channel } }))
                    .await;
                let stats = &reply["presence_stats"];
                if (stats["num_clients"].as_u64(), stats["num_users"].as_u64())
                    == (Some(expected.0), Some(expected.1))
                {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within(asking).await;
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self) {
        within(self.socket.close(None)).await.unwrap();
        // Until the server has, too.
        while within(self.socket.next())
            .await
            .is_some_and(|message| message.is_ok())
        {}
    }
}

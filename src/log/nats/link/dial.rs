//! From a list of servers to a connection that a server has accepted: TCP, TLS where it is asked
//! for, credentials.

use std::{io, sync::Arc, time::Duration};

use async_nats::ServerAddr;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::BytesMut;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::wire::{self, Connect, Said, ServerInfo};
use crate::{
    config::{NatsConfig, Secret},
    log::nats::StartError,
    random,
};

/// Servers of a cluster that are remembered.
const MAX_SERVERS: usize = 256;

/// A connection's bytes, encrypted or not.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that a server has accepted.
pub(super) struct Dialled {
    pub(super) stream: Box<dyn Duplex>,
    /// What it has already said.
    pub(super) read: BytesMut,
    /// Which server it is.
    pub(super) server: ServerAddr,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not answer")]
    Silent,
    #[error("it closes the connection")]
    Closed,
    #[error("{0}")]
    Wire(#[from] wire::WireError),
    #[error("it says {0}")]
    Refused(String),
    #[error("the credentials cannot be used: {0}")]
    Credentials(String),
    #[error("the CA file cannot be used: {0}")]
    Ca(String),
    #[error("there is no server to connect to")]
    NoServer,
}

/// How to connect.
pub(super) struct Dialer {
    servers: Vec<ServerAddr>,
    /// Those of the configuration come first and are never forgotten.
    configured: usize,
    name: &'static str,
    identity: Identity,
    ca_file: Option<std::path::PathBuf>,
    /// A server that takes longer to accept a connection is passed over.
    timeout: Duration,
}

enum Identity {
    Nobody,
    User {
        name: String,
        password: Option<Secret>,
    },
    Token(Secret),
    /// What a credentials file holds.
    Signed {
        jwt: Secret,
        seed: Secret,
    },
}

impl Dialer {
    /// # Errors
    ///
    /// If the servers' addresses or the credentials file cannot be read.
    pub(super) fn new(nats: &NatsConfig, name: &'static str) -> Result<Self, StartError> {
        let servers = super::super::connect::servers(nats)?;
        Ok(Self {
            configured: servers.len(),
            servers,
            name,
            identity: Identity::of(nats)?,
            ca_file: nats.ca_file.clone(),
            timeout: nats.connect_timeout,
        })
    }

    /// Tries all servers once, in a random order but `last` at the end.
    pub(super) async fn dial(&mut self, last: Option<&ServerAddr>) -> Result<Dialled, DialError> {
        let mut servers: Vec<_> = self
            .servers
            .iter()
            .map(|server| (Some(server) == last, random::below(u64::MAX), server.clone()))
            .collect();
        servers.sort_by_key(|(is_last, at, _)| (*is_last, *at));
        let mut why = DialError::NoServer;
        for (_, _, server) in servers {
            match timeout(self.timeout, self.connect(&server)).await {
                Ok(Ok(dialled)) => return Ok(dialled),
                Ok(Err(error)) => why = error,
                Err(_) => why = DialError::Silent,
            }
        }
        Err(why)
    }

    /// What a server says about its cluster.
    pub(super) fn learn(&mut self, info: &ServerInfo) {
        if info.connect_urls.is_empty() {
            return;
        }
        self.servers.truncate(self.configured);
        for url in &info.connect_urls {
            if let Ok(server) = url.parse()
                && !self.servers.contains(&server)
                && self.servers.len() < MAX_SERVERS
            {
                self.servers.push(server);
            }
        }
    }

    async fn connect(&mut self, server: &ServerAddr) -> Result<Dialled, DialError> {
        let tcp = TcpStream::connect((server.host(), server.port())).await?;
        tcp.set_nodelay(true)?;
        let mut stream: Box<dyn Duplex> = Box::new(tcp);
        let mut read = BytesMut::new();
        let Said::Info(info) = hear(&mut stream, &mut read).await? else {
            return Err(wire::WireError::GREETING.into());
        };
        let secure = self.ca_file.is_some() || server.tls_required() || info.tls_required;
        if secure {
            let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(self.tls()?));
            stream = Box::new(connector.connect(name, stream).await?);
        }
        self.learn(&info);
        let mut out = Vec::new();
        wire::connect(&mut out, &self.introduction(secure, &info.nonce)?).map_err(io::Error::from)?;
        stream.write_all(&out).await?;
        stream.flush().await?;
        loop {
            match hear(&mut stream, &mut read).await? {
                Said::Pong => break,
                Said::Error(why) => return Err(DialError::Refused(why)),
                _ => {}
            }
        }
        Ok(Dialled {
            stream,
            read,
            server: server.clone(),
        })
    }

    fn introduction(&self, secure: bool, nonce: &str) -> Result<Connect<'_>, DialError> {
        let mut connect = Connect {
            verbose: false,
            pedantic: false,
            tls_required: secure,
            name: self.name,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            protocol: 1,
            echo: true,
            headers: true,
            no_responders: true,
            user: None,
            pass: None,
            auth_token: None,
            jwt: None,
            sig: None,
        };
        match &self.identity {
            Identity::Nobody => {}
            Identity::User { name, password } => {
                connect.user = Some(name);
                connect.pass = Some(password.as_ref().map_or("", Secret::expose));
            }
            Identity::Token(token) => connect.auth_token = Some(token.expose()),
            Identity::Signed { jwt, seed } => {
                let unusable = |error: nkeys::error::Error| DialError::Credentials(error.to_string());
                let pair = nkeys::KeyPair::from_seed(seed.expose()).map_err(unusable)?;
                let signature = pair.sign(nonce.as_bytes()).map_err(unusable)?;
                connect.jwt = Some(jwt.expose());
                connect.sig = Some(URL_SAFE_NO_PAD.encode(signature));
            }
        }
        Ok(connect)
    }

    /// Trusts the CA file, or what the system trusts.
    fn tls(&self) -> Result<ClientConfig, DialError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path)?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| DialError::Ca(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| DialError::Ca(error.to_string()))?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        Ok(config.with_no_client_auth())
    }
}

impl Identity {
    fn of(nats: &NatsConfig) -> Result<Self, StartError> {
        if let Some(name) = &nats.user {
            return Ok(Self::User {
                name: name.clone(),
                password: nats.password.clone(),
            });
        }
        if let Some(token) = &nats.token {
            return Ok(Self::Token(token.clone()));
        }
        let Some(path) = &nats.credentials else {
            return Ok(Self::Nobody);
        };
        let unusable = |why: String| StartError::Credentials {
            path: path.clone(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        match credentials(&text) {
            Some((jwt, seed)) => Ok(Self::Signed {
                jwt: Secret::new(jwt),
                seed: Secret::new(seed),
            }),
            None => Err(unusable("it holds no user JWT with its seed".to_owned())),
        }
    }
}

/// The JWT and the seed of a credentials file: what stands between its decorated lines.
fn credentials(text: &str) -> Option<(&str, &str)> {
    let between = |what: &str| {
        let (_, rest) = text.split_once(&format!("BEGIN {what}"))?;
        let mut lines = rest.lines().skip(1).map(str::trim);
        lines.find(|line| !line.is_empty() && !line.starts_with("---"))
    };
    Some((between("NATS USER JWT")?, between("USER NKEY SEED")?))
}

/// The next thing a server says.
async fn hear(stream: &mut Box<dyn Duplex>, read: &mut BytesMut) -> Result<Said, DialError> {
    loop {
        if let Some(said) = wire::next(read)? {
            return Ok(said);
        }
        if stream.read_buf(read).await? == 0 {
            return Err(DialError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_holds_a_jwt_and_a_seed() {
        let text = "-----BEGIN NATS USER JWT-----\r\neyJ0\r\n------END NATS USER JWT------\r\n\n\
            ************************* IMPORTANT *************************\n\
            -----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n";
        assert_eq!(credentials(text), Some(("eyJ0", "SUAB")));
        for text in ["", "eyJ0", "-----BEGIN NATS USER JWT-----\neyJ0\n"] {
            assert_eq!(credentials(text), None);
        }
    }
}

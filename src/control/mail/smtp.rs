use std::{fs, io};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
        extension::ClientId,
    },
};

use super::{Letter, MailError, Mailer};
use crate::{
    config::{MailConfig, MailEncryption},
    store::BoxFuture,
};

/// Why letters cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// `mail.from`.
    #[error("mail.from is not an address")]
    From,
    /// `mail.ca_file`.
    #[error("mail.ca_file cannot be used: {0}")]
    CaFile(#[source] io::Error),
    /// TLS cannot be used with this server's name.
    #[error("no TLS to mail.host: {0}")]
    Tls(#[source] lettre::transport::smtp::Error),
}

/// Hands letters to a mail server, each on a connection of its own.
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// What stands behind the `@` of message ids.
    domain: String,
}

impl SmtpMailer {
    /// Sends as `config` says. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// See [`SmtpError`].
    pub fn new(config: &MailConfig) -> Result<Self, SmtpError> {
        let from: Mailbox = config.from.parse().map_err(|_| SmtpError::From)?;
        let domain = from.email.domain().to_owned();
        let (tls, usual) = match config.encryption {
            MailEncryption::Tls => (Tls::Wrapper(tls(config)?), 465),
            MailEncryption::StartTls => (Tls::Required(tls(config)?), 587),
            MailEncryption::None => (Tls::None, 25),
        };
        let port = if config.port == 0 { usual } else { config.port };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(port)
            .tls(tls)
            .hello_name(ClientId::Domain(domain.clone()))
            .timeout(Some(config.timeout));
        if let (Some(user), Some(password)) = (&config.user, &config.password) {
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            builder = builder.credentials(credentials);
        }
        Ok(Self {
            transport: builder.build(),
            from,
            domain,
        })
    }
}

fn tls(config: &MailConfig) -> Result<TlsParameters, SmtpError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        let pem = fs::read(path).map_err(SmtpError::CaFile)?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|_| SmtpError::CaFile(io::Error::other("not a certificate in PEM")))?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(SmtpError::Tls)
}

impl Mailer for SmtpMailer {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), MailError>> {
        Box::pin(async {
            let to = letter
                .to
                .parse()
                .map_err(|_| MailError::Permanent("not an address".to_owned()))?;
            let message = Message::builder()
                .from(self.from.clone())
                .to(Mailbox::new(None, to))
                .subject(&letter.subject)
                .message_id(Some(format!("<{}@{}>", crate::random::name(24), self.domain)))
                .header(ContentType::TEXT_PLAIN)
                .body(letter.text.expose().to_owned())
                .map_err(|error| MailError::Permanent(error.to_string()))?;
            match self.transport.send(message).await {
                Ok(_) => Ok(()),
                // A server's answer of 5xx; everything else may go better.
                Err(error) if error.is_permanent() => Err(MailError::Permanent(error.to_string())),
                Err(error) => Err(MailError::Temporary(error.to_string())),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;
    use crate::config::{Config, Secret, Sources};

    /// A mail server for one letter: its answer to `RCPT`, and what it was sent.
    async fn serve(listener: TcpListener, rcpt: &'static str) -> Vec<String> {
        let (socket, _) = listener.accept().await.unwrap();
        let (read, mut write) = socket.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut heard = Vec::new();
        let mut in_data = false;
        write.write_all(b"220 hello\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            heard.push(line.clone());
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_owned();
            let answer = match verb.as_str() {
                _ if in_data && line != "." => continue,
                _ if in_data => {
                    in_data = false;
                    "250 kept"
                }
                "DATA" => {
                    in_data = true;
                    "354 go on"
                }
                "RCPT" => rcpt,
                "QUIT" => "221 bye",
                _ => "250 fine",
            };
            if write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() || verb == "QUIT" {
                break;
            }
        }
        heard
    }

    async fn send(rcpt: &'static str) -> (Result<(), MailError>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::load(&Sources::default()).unwrap().mail;
        config.host = "127.0.0.1".to_owned();
        config.port = listener.local_addr().unwrap().port();
        config.encryption = MailEncryption::None;
        config.from = "Slipstream <noreply@x.example>".to_owned();
        let mailer = SmtpMailer::new(&config).unwrap();
        let letter = Letter {
            to: "ann@b.example".into(),
            subject: "Grüße".into(),
            text: Secret::new("Hello Ann,\n.\nhttps://x.example/#token=abc\n"),
        };
        let (sent, heard) = tokio::join!(
            async {
                let sent = mailer.send(&letter).await;
                drop(mailer);
                sent
            },
            serve(listener, rcpt)
        );
        (sent, heard)
    }

    #[tokio::test]
    async fn a_letter_is_handed_over() {
        let (sent, heard) = send("250 fine").await;
        assert_eq!(sent, Ok(()));
        let has = |line: &str| heard.iter().any(|heard| heard == line);
        assert!(has("EHLO x.example"), "{heard:?}");
        assert!(
            heard
                .iter()
                .any(|line| line.starts_with("MAIL FROM:<noreply@x.example>"))
        );
        assert!(has("RCPT TO:<ann@b.example>"));
        assert!(
            has("From: Slipstream <noreply@x.example>") || has("From: \"Slipstream\" <noreply@x.example>")
        );
        assert!(heard.iter().any(|line| line.starts_with("Message-ID: <")));
        assert!(has(".."), "a line with a dot is not the end: {heard:?}");
        assert!(heard.iter().any(|line| line.contains("#token")));
    }

    #[tokio::test]
    async fn refusals_are_for_now_or_for_good() {
        let (sent, _) = send("450 later").await;
        assert!(matches!(sent, Err(MailError::Temporary(_))), "{sent:?}");
        let (sent, _) = send("550 no such user").await;
        assert!(matches!(sent, Err(MailError::Permanent(_))), "{sent:?}");
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let mut config = Config::load(&Sources::default()).unwrap().mail;
        config.host = "mail.x.example".to_owned();
        config.from = "nobody".to_owned();
        assert!(matches!(SmtpMailer::new(&config), Err(SmtpError::From)));
        config.from = "a@x.example".to_owned();
        config.ca_file = Some("/nowhere/at/all".into());
        assert!(matches!(SmtpMailer::new(&config), Err(SmtpError::CaFile(_))));
    }
}

//! The services over a real store: SQLite in a file.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Config, Secret, SignUp, Sources},
    store::{self, BoxFuture},
};

mod accounts;
mod audit;
mod second_factor;
mod sessions;
mod teams;
mod tokens;

const PASSWORD: &str = "correct horse battery";

/// Keeps what it is given.
const SEALING: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

#[derive(Default)]
struct Letters(Mutex<Vec<Letter>>);

impl Mailer for Letters {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), MailError>> {
        self.0.lock().push(letter.clone());
        Box::pin(async { Ok(()) })
    }
}

struct Fixture {
    control: Arc<Control>,
    store: Arc<dyn Store>,
    config: ControlConfig,
    time: Arc<AtomicI64>,
    letters: Arc<Letters>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    _folder: TempDir,
}

fn test_config() -> ControlConfig {
    let mut config = Config::load(&Sources::default()).unwrap().control;
    config.sign_up = SignUp::Open;
    config.public_url = "https://x.example".to_owned();
    config.session_secret = Some(Secret::new("0123456789abcdef0123456789abcdef"));
    (config.password_memory, config.password_passes) = (8 * 1024, 1);
    config.letters_per_address = 1000;
    config
}

async fn fixture() -> Fixture {
    fixture_with(|_| ()).await
}

async fn fixture_with(adjust: impl FnOnce(&mut ControlConfig)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let mut config = test_config();
    adjust(&mut config);
    let mut store = Config::load(&Sources::default()).unwrap().store;
    store.url = Some(Secret::new(format!(
        "sqlite:{}",
        folder.path().join("s.db").display()
    )));
    let tasks = Tasks::default();
    let store = store::open(&store, &tasks).await.unwrap();
    let time = Arc::new(AtomicI64::new(1_800_000_000_000));
    let (letters, metrics) = (Arc::new(Letters::default()), Arc::new(Metrics::new()));
    let control = node(&config, &[SEALING], &store, &time, &letters, &metrics, &tasks);
    Fixture {
        control,
        store,
        config,
        time,
        letters,
        metrics,
        tasks,
        _folder: folder,
    }
}

fn node(
    config: &ControlConfig,
    sealing: &[&str],
    store: &Arc<dyn Store>,
    time: &Arc<AtomicI64>,
    letters: &Arc<Letters>,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Arc<Control> {
    let mail = Config::load(&Sources::default()).unwrap().mail;
    let mail = Mail::with(letters.clone(), &mail, metrics.clone(), tasks);
    let now = time.clone();
    let clock = Clock::new(move || now.load(Ordering::SeqCst));
    let sealing: Vec<_> = sealing.iter().map(|key| secret(key)).collect();
    let sealing = Arc::new(Sealing::new(&sealing).unwrap());
    Control::start_with(
        config,
        mail,
        sealing,
        store.clone(),
        clock,
        metrics.clone(),
        tasks,
    )
    .unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

fn origin() -> Origin {
    Origin::new("203.0.113.7".parse().ok(), "browser")
}

fn anybody() -> Actor {
    Actor::anybody(origin())
}

fn operator() -> Actor {
    Actor::system("cli")
}

fn code<T: std::fmt::Debug>(result: Result<T, ControlError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

impl Fixture {
    /// Another control node on the same store.
    fn other_node(&self) -> Arc<Control> {
        node(
            &self.config,
            &[SEALING],
            &self.store,
            &self.time,
            &self.letters,
            &self.metrics,
            &self.tasks,
        )
    }

    fn wait(&self, span: Duration) {
        self.time.fetch_add(clock::ms(span), Ordering::SeqCst);
    }

    fn now(&self) -> i64 {
        self.time.load(Ordering::SeqCst)
    }

    /// Makes an account with a verified address; its id.
    async fn account(&self, email: &str) -> String {
        let (operator, password) = (operator(), secret(PASSWORD));
        let made = self
            .control
            .accounts
            .create(&operator, email, "Somebody", &password);
        made.await.unwrap().id
    }

    fn login(email: &str, password: &str) -> Login {
        Login {
            email: email.to_owned(),
            password: secret(password),
            code: None,
        }
    }

    async fn signs_in(&self, email: &str) -> (Actor, SessionTokens) {
        let login = Self::login(email, PASSWORD);
        let signed_in = self.control.accounts.login(&anybody(), &login).await.unwrap();
        let token = signed_in.tokens.access_token.expose();
        let actor = self.control.authenticate(token, origin()).await.unwrap();
        (actor, signed_in.tokens)
    }

    /// Makes an account and signs it in.
    async fn person(&self, email: &str) -> Actor {
        self.account(email).await;
        self.signs_in(email).await.0
    }

    /// The secret of the last letter to an address whose subject begins so. Waits for it.
    async fn link(&self, email: &str, subject: &str) -> Secret {
        let letter = self.letter(email, subject).await;
        let text = letter.text.expose();
        let (_, rest) = text.split_once("#token=").expect("a link");
        secret(rest.split_whitespace().next().unwrap())
    }

    async fn letter(&self, email: &str, subject: &str) -> Letter {
        for _ in 0..500 {
            let found = self.letters.0.lock().iter().rev().find_map(|letter| {
                (letter.to == email && letter.subject.starts_with(subject)).then(|| letter.clone())
            });
            if let Some(letter) = found {
                return letter;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no letter {subject:?} to {email}");
    }

    fn letters_to(&self, email: &str) -> usize {
        self.letters
            .0
            .lock()
            .iter()
            .filter(|letter| letter.to == email)
            .count()
    }

    /// A team of `owner`, with a member of each role that signs in as `<role>@x.example`.
    async fn team_of_all_roles(&self) -> (String, Vec<(Role, Actor)>) {
        let owner = self.person("owner@x.example").await;
        let team = self.control.teams.create(&owner, "Team").await.unwrap().id;
        let mut all = Vec::new();
        for role in Role::ALL {
            if role == Role::Owner {
                continue;
            }
            let member = self
                .joins(&owner, &team, &format!("{}@x.example", role.as_str()), role)
                .await;
            all.push((role, member));
        }
        all.push((Role::Owner, owner));
        (team, all)
    }

    /// Makes an account that is invited to a team and accepts.
    async fn joins(&self, owner: &Actor, team: &str, email: &str, role: Role) -> Actor {
        let person = self.person(email).await;
        self.control.teams.invite(owner, team, email, role).await.unwrap();
        let link = self.link(email, "You are invited").await;
        self.control.teams.accept(&person, &link).await.unwrap();
        person
    }

    async fn entries(&self) -> Vec<Entry> {
        let mut search = Search::of(About::All);
        search.newest_first = false;
        search.limit = 1000;
        self.control.audit.search(&search).await.unwrap().entries
    }
}

#[tokio::test]
async fn what_is_missing_is_told_at_the_start() {
    let fixture = fixture().await;
    let start = |adjust: fn(&mut ControlConfig)| {
        let mut config = test_config();
        adjust(&mut config);
        let mail = Mail::start(
            &Config::load(&Sources::default()).unwrap().mail,
            fixture.metrics.clone(),
            &fixture.tasks,
        );
        let (store, metrics) = (fixture.store.clone(), fixture.metrics.clone());
        let started = Control::start_with(
            &config,
            mail.unwrap(),
            Arc::new(Sealing::new(&[]).unwrap()),
            store,
            Clock::system(),
            metrics,
            &fixture.tasks,
        );
        started.err().map(|error| error.to_string())
    };
    assert_eq!(start(|_| ()), None);
    for (adjust, said) in [
        (
            (|it| it.session_secret = None) as fn(&mut ControlConfig),
            "control.session_secret must be set",
        ),
        (|it| it.public_url.clear(), "control.public_url must be set"),
    ] {
        let error = start(adjust).unwrap();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn what_has_expired_is_swept() {
    let fixture = fixture().await;
    let ann = fixture.person("ann@x.example").await;
    let request = SignUpRequest {
        email: "bob@x.example".into(),
        name: "Bob".into(),
        password: secret(PASSWORD),
        invitation: None,
    };
    fixture
        .control
        .accounts
        .sign_up(&anybody(), request)
        .await
        .unwrap();
    assert_eq!(fixture.control.sweep().await, Ok(0));
    fixture.wait(Duration::from_hours(49));
    // The account that was never verified, and its link.
    assert_eq!(fixture.control.sweep().await, Ok(2));
    assert!(fixture.control.accounts.get(&ann).await.is_ok());
    fixture.wait(Duration::from_hours(24 * 14));
    assert_eq!(fixture.control.sweep().await, Ok(1), "the session");
    fixture.wait(Duration::from_hours(24 * 400));
    assert!(fixture.control.sweep().await.unwrap() >= 3, "the audit log");
}

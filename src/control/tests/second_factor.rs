use super::*;
use crate::control::totp::{accept, code_at};

/// The seed as it is typed from the enrolment.
fn seed(enrolment: &Enrolment) -> Vec<u8> {
    let mut bits = 0_u64;
    let mut count = 0;
    let mut seed = Vec::new();
    for c in enrolment.seed.expose().bytes() {
        let value = if c.is_ascii_uppercase() {
            c - b'A'
        } else {
            c - b'2' + 26
        };
        bits = bits << 5 | u64::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            seed.push((bits >> count & 255) as u8);
        }
    }
    seed
}

impl Fixture {
    fn code_of(&self, seed: &[u8]) -> Secret {
        secret(&code_at(seed, self.now() / 30_000, 6))
    }

    /// Turns the second factor of `actor` on: its seed and the recovery codes.
    async fn enrols(&self, actor: &Actor) -> (Vec<u8>, Vec<Secret>) {
        let accounts = &self.control.accounts;
        let enrolment = accounts
            .begin_second_factor(actor, &secret(PASSWORD))
            .await
            .unwrap();
        let seed = seed(&enrolment);
        let codes = accounts
            .confirm_second_factor(actor, &self.code_of(&seed))
            .await
            .unwrap();
        (seed, codes)
    }

    fn login_with(code: &Secret) -> Login {
        Login {
            code: Some(code.clone()),
            ..Self::login("ann@x.example", PASSWORD)
        }
    }
}

#[tokio::test]
async fn a_second_factor_is_set_up_and_needed() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    let ann = fixture.person("ann@x.example").await;
    assert_eq!(
        code(accounts.confirm_second_factor(&ann, &secret("000000")).await),
        "second_factor_state"
    );
    assert_eq!(
        code(accounts.begin_second_factor(&ann, &secret("wrong")).await),
        "invalid_credentials"
    );
    let enrolment = accounts
        .begin_second_factor(&ann, &secret(PASSWORD))
        .await
        .unwrap();
    assert!(
        enrolment
            .url
            .expose()
            .starts_with("otpauth://totp/Slipstream:ann%40x.example?secret=")
    );
    assert!(!format!("{enrolment:?}").contains(enrolment.seed.expose()));
    fixture.signs_in("ann@x.example").await;
    let (seed, recovery) = fixture.enrols(&ann).await;
    assert_eq!(
        code(accounts.begin_second_factor(&ann, &secret(PASSWORD)).await),
        "second_factor_state"
    );
    fixture
        .letter("ann@x.example", "The second factor was turned on")
        .await;

    let plain = Fixture::login("ann@x.example", PASSWORD);
    assert_eq!(
        code(accounts.login(&anybody(), &plain).await),
        "second_factor_required"
    );
    let used = fixture.code_of(&seed);
    assert_eq!(
        code(accounts.login(&anybody(), &Fixture::login_with(&used)).await),
        "second_factor_invalid"
    );
    fixture.wait(Duration::from_secs(30));
    let next = fixture.code_of(&seed);
    assert_eq!(
        code(accounts.login(&anybody(), &Fixture::login_with(&next)).await),
        "ok"
    );
    assert_eq!(
        code(accounts.login(&anybody(), &Fixture::login_with(&next)).await),
        "second_factor_invalid"
    );
    // Recovery codes count once.
    assert_eq!(recovery.len(), 10);
    assert_eq!(
        code(
            accounts
                .login(&anybody(), &Fixture::login_with(&recovery[4]))
                .await
        ),
        "ok"
    );
    assert_eq!(
        code(
            accounts
                .login(&anybody(), &Fixture::login_with(&recovery[4]))
                .await
        ),
        "second_factor_invalid"
    );
    assert_eq!(accounts.get(&ann).await.unwrap().recovery_codes, 9);
    // Nothing of it lies in the database as it is.
    let id = ann.account().unwrap();
    let document = fixture
        .store
        .get(Collection::Accounts, id)
        .await
        .unwrap()
        .unwrap()
        .body
        .to_string();
    for shown in recovery
        .iter()
        .map(Secret::expose)
        .chain([totp::base32(&seed).as_str(), PASSWORD])
    {
        assert!(!document.contains(shown));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_at_once_with_one_code_one_signs_in() {
    let fixture = fixture().await;
    let ann = fixture.person("ann@x.example").await;
    let (seed, recovery) = fixture.enrols(&ann).await;
    fixture.wait(Duration::from_secs(60));
    let other = fixture.other_node();
    for code_used in [&fixture.code_of(&seed), &recovery[0]] {
        let login = Fixture::login_with(code_used);
        let who = anybody();
        let both = tokio::join!(
            fixture.control.accounts.login(&who, &login),
            other.accounts.login(&who, &login)
        );
        let mut codes = [code(both.0), code(both.1)];
        codes.sort_unstable();
        assert_eq!(codes, ["ok", "second_factor_invalid"]);
    }
}

#[tokio::test]
async fn guessing_codes_is_held_off() {
    let fixture = fixture_with(|config| config.lockout_account = 3).await;
    let accounts = &fixture.control.accounts;
    let ann = fixture.person("ann@x.example").await;
    let (seed, _) = fixture.enrols(&ann).await;
    fixture.wait(Duration::from_secs(60));
    let guess = (0..1_000_000)
        .map(|guess| format!("{guess:06}"))
        .find(|guess| accept(&seed, guess, fixture.now(), None).is_err())
        .unwrap();
    let plain = Fixture::login("ann@x.example", PASSWORD);
    for _ in 0..3 {
        // Asking without a code in between forgives nothing.
        assert_eq!(
            code(accounts.login(&anybody(), &plain).await),
            "second_factor_required"
        );
        let answer = accounts
            .login(&anybody(), &Fixture::login_with(&secret(&guess)))
            .await;
        assert_eq!(code(answer), "second_factor_invalid");
    }
    assert_eq!(
        code(accounts.login(&anybody(), &plain).await),
        "too_many_attempts"
    );
    let disable = accounts
        .disable_second_factor(&ann, &secret(PASSWORD), &secret(&guess))
        .await;
    assert_eq!(code(disable), "too_many_attempts");
}

#[tokio::test]
async fn it_is_turned_off_with_password_and_code() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    let ann = fixture.person("ann@x.example").await;
    let (password, wrong) = (secret(PASSWORD), secret("wrong"));
    assert_eq!(
        code(accounts.disable_second_factor(&ann, &password, &wrong).await),
        "second_factor_state"
    );
    let (_, recovery) = fixture.enrols(&ann).await;
    assert_eq!(
        code(accounts.disable_second_factor(&ann, &password, &wrong).await),
        "second_factor_invalid"
    );
    assert_eq!(
        code(accounts.disable_second_factor(&ann, &wrong, &recovery[0]).await),
        "invalid_credentials"
    );
    assert_eq!(
        code(accounts.delete(&ann, &password, None).await),
        "second_factor_required"
    );
    let renewed = accounts
        .renew_recovery_codes(&ann, &password, &recovery[0])
        .await
        .unwrap();
    assert_eq!(
        code(
            accounts
                .disable_second_factor(&ann, &password, &recovery[1])
                .await
        ),
        "second_factor_invalid"
    );
    accounts
        .disable_second_factor(&ann, &password, &renewed[1])
        .await
        .unwrap();
    fixture.signs_in("ann@x.example").await;
}

#[tokio::test]
async fn seeds_are_sealed_with_the_new_key_when_they_are_used() {
    let fixture = fixture().await;
    let ann = fixture.person("ann@x.example").await;
    let (_, recovery) = fixture.enrols(&ann).await;
    let Fixture {
        store,
        time,
        letters,
        metrics,
        tasks,
        ..
    } = &fixture;
    let config = &fixture.config;
    let new = "aa".repeat(32);
    let rotated = node(config, &[&new, SEALING], store, time, letters, metrics, tasks);
    rotated
        .accounts
        .login(&anybody(), &Fixture::login_with(&recovery[0]))
        .await
        .unwrap();
    // The old key is gone.
    let later = node(config, &[&new], store, time, letters, metrics, tasks);
    later
        .accounts
        .login(&anybody(), &Fixture::login_with(&recovery[1]))
        .await
        .unwrap();
    let none = node(config, &[], store, time, letters, metrics, tasks);
    let login = Fixture::login_with(&recovery[2]);
    assert_eq!(
        code(none.accounts.login(&anybody(), &login).await),
        "not_configured"
    );
}

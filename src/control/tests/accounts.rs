use super::*;

fn request(email: &str, password: &str) -> SignUpRequest {
    SignUpRequest {
        email: email.to_owned(),
        name: "Ann".to_owned(),
        password: secret(password),
        invitation: None,
    }
}

#[tokio::test]
async fn somebody_signs_up_verifies_and_signs_in() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    assert_eq!(
        accounts
            .sign_up(&anybody(), request(" Ann@X.example", PASSWORD))
            .await,
        Ok(None)
    );
    let login = Fixture::login("ann@x.example", PASSWORD);
    assert_eq!(
        code(accounts.login(&anybody(), &login).await),
        "email_not_verified"
    );
    let wrong = Fixture::login("ann@x.example", "wrong password");
    assert_eq!(
        code(accounts.login(&anybody(), &wrong).await),
        "invalid_credentials"
    );
    let link = fixture.link("ann@x.example", "Verify").await;
    accounts
        .verify_email(&anybody(), &link, &secret(PASSWORD))
        .await
        .unwrap();
    assert_eq!(
        code(accounts.verify_email(&anybody(), &link, &secret(PASSWORD)).await),
        "link_invalid"
    );
    let signed_in = accounts.login(&anybody(), &login).await.unwrap();
    assert_eq!(signed_in.account.email, "ann@x.example");
    assert!(signed_in.account.verified_ms.is_some());
    // The answer for an address that has an account is the same, and it stays as it is.
    assert_eq!(
        accounts
            .sign_up(&anybody(), request("ann@x.example", "another password"))
            .await,
        Ok(None)
    );
    fixture
        .letter("ann@x.example", "You already have an account")
        .await;
    assert!(accounts.login(&anybody(), &login).await.is_ok());
    for (bad, why) in [
        (request("nobody", PASSWORD), "invalid_input"),
        (request("a@x.example", "short"), "weak_password"),
        (request("a-long@x.example", "A-long@x.example"), "weak_password"),
    ] {
        assert_eq!(code(accounts.sign_up(&anybody(), bad).await), why);
    }
}

#[tokio::test]
async fn who_signs_up_for_an_address_of_another_gains_nothing() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    accounts
        .sign_up(&anybody(), request("ann@x.example", "password of a thief"))
        .await
        .unwrap();
    let first = fixture.link("ann@x.example", "Verify").await;
    accounts
        .sign_up(&anybody(), request("ann@x.example", PASSWORD))
        .await
        .unwrap();
    while fixture.letters_to("ann@x.example") < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        code(accounts.verify_email(&anybody(), &first, &secret(PASSWORD)).await),
        "link_invalid"
    );
    let second = fixture.link("ann@x.example", "Verify").await;
    accounts
        .verify_email(&anybody(), &second, &secret(PASSWORD))
        .await
        .unwrap();
    let thief = Fixture::login("ann@x.example", "password of a thief");
    assert_eq!(
        code(accounts.login(&anybody(), &thief).await),
        "invalid_credentials"
    );
    fixture.signs_in("ann@x.example").await;
}

#[tokio::test]
async fn a_letter_verifies_no_password_of_somebody_else() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    accounts
        .sign_up(&anybody(), request("ann@x.example", "password of a thief"))
        .await
        .unwrap();
    // Ann opens the letter that the thief has caused.
    let link = fixture.link("ann@x.example", "Verify").await;
    let opened = accounts.verify_email(&anybody(), &link, &secret(PASSWORD)).await;
    assert_eq!(code(opened), "invalid_credentials");
    let thief = Fixture::login("ann@x.example", "password of a thief");
    let refused = accounts.login(&anybody(), &thief).await;
    assert_eq!(code(refused), "email_not_verified");
}

#[tokio::test]
async fn an_invitation_used_twice_at_once_leaves_one_account_and_member() {
    let fixture = fixture().await;
    let (accounts, teams) = (&fixture.control.accounts, &fixture.control.teams);
    let ann = fixture.person("ann@x.example").await;
    let team = teams.create(&ann, "Team").await.unwrap().id;
    for known in [false, true] {
        let bob = format!("bob{known}@x.example");
        if known {
            // Somebody has signed up with the address and not verified it.
            let thief = request(&bob, "password of a thief");
            accounts.sign_up(&anybody(), thief).await.unwrap();
        }
        teams.invite(&ann, &team, &bob, Role::Viewer).await.unwrap();
        let link = fixture.link(&bob, "You are invited").await;
        let accept = || {
            let request = SignUpRequest {
                invitation: Some(link.clone()),
                ..request(&bob, PASSWORD)
            };
            async move { accounts.sign_up(&anybody(), request).await }
        };
        let thief = accounts
            .sign_up(&anybody(), request(&bob, "password of a thief"))
            .await;
        thief.unwrap();
        let (one, two) = tokio::join!(accept(), accept());
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let (bob, _) = fixture.signs_in(&bob).await;
        assert_eq!(teams.get(&bob, &team).await.unwrap().role, Role::Viewer);
    }
}

#[tokio::test]
async fn a_link_to_an_address_that_was_left_sets_no_password() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    let ann = fixture.person("ann@x.example").await;
    accounts.request_reset(&anybody(), "ann@x.example").await.unwrap();
    let old = fixture.link("ann@x.example", "Set a new").await;
    accounts
        .change_email(&ann, &secret(PASSWORD), "anna@x.example")
        .await
        .unwrap();
    let link = fixture.link("anna@x.example", "Verify your new").await;
    accounts.confirm_email(&anybody(), &link).await.unwrap();
    let new = secret("another password");
    let reset = accounts.reset_password(&anybody(), &old, &new).await;
    assert_eq!(code(reset), "link_invalid");
    fixture.signs_in("anna@x.example").await;
}

#[tokio::test]
async fn letters_to_people_who_are_not_signed_in_are_bounded() {
    let fixture = fixture_with(|config| (config.max_letters, config.letters_per_address) = (2, 6)).await;
    let accounts = &fixture.control.accounts;
    fixture.account("ann@x.example").await;
    for _ in 0..4 {
        assert_eq!(accounts.request_reset(&anybody(), "ann@x.example").await, Ok(()));
    }
    assert_eq!(
        accounts.request_reset(&anybody(), "nobody@x.example").await,
        Ok(())
    );
    assert_eq!(
        accounts.resend_verification(&anybody(), "nobody@x.example").await,
        Ok(())
    );
    assert_eq!(
        code(accounts.request_reset(&anybody(), "ann@x.example").await),
        "too_many_attempts"
    );
    let elsewhere = Actor::anybody(Origin::new("203.0.113.8".parse().ok(), ""));
    assert_eq!(
        accounts.request_reset(&elsewhere, "nobody@x.example").await,
        Ok(())
    );
    fixture.link("ann@x.example", "Set a new").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        fixture.letters_to("ann@x.example") <= 4,
        "those at once may each find room"
    );
    assert_eq!(fixture.letters_to("nobody@x.example"), 0);
}

#[tokio::test]
async fn by_invitation_only() {
    let fixture = fixture_with(|config| config.sign_up = SignUp::Invitation).await;
    let (accounts, teams) = (&fixture.control.accounts, &fixture.control.teams);
    assert_eq!(
        code(
            accounts
                .sign_up(&anybody(), request("ann@x.example", PASSWORD))
                .await
        ),
        "sign_up_closed"
    );
    let link = teams
        .invite_to_sign_up(&operator(), "Ann@x.example")
        .await
        .unwrap();
    let with = |email: &str, link: &Secret| SignUpRequest {
        invitation: Some(link.clone()),
        ..request(email, PASSWORD)
    };
    let other = accounts.sign_up(&anybody(), with("bob@x.example", &link)).await;
    assert_eq!(code(other), "invitation_not_yours");
    let made = accounts
        .sign_up(&anybody(), with("ann@x.example", &link))
        .await
        .unwrap()
        .unwrap();
    assert!(made.verified_ms.is_some(), "the letter has verified it");
    let (ann, _) = fixture.signs_in("ann@x.example").await;
    assert_eq!(
        code(accounts.sign_up(&anybody(), with("ann@x.example", &link)).await),
        "link_invalid"
    );
    let again = teams
        .invite_to_sign_up(&operator(), "ann@x.example")
        .await
        .unwrap();
    assert_eq!(
        code(accounts.sign_up(&anybody(), with("ann@x.example", &again)).await),
        "email_taken"
    );
    assert_eq!(
        code(teams.invite_to_sign_up(&ann, "bob@x.example").await),
        "forbidden"
    );

    // An invitation to a team makes an account, and a member of it.
    let team = teams.create(&ann, "Team").await.unwrap().id;
    teams
        .invite(&ann, &team, "bob@x.example", Role::Developer)
        .await
        .unwrap();
    let link = fixture.link("bob@x.example", "You are invited").await;
    accounts
        .sign_up(&anybody(), with("bob@x.example", &link))
        .await
        .unwrap();
    let (bob, _) = fixture.signs_in("bob@x.example").await;
    assert_eq!(teams.get(&bob, &team).await.unwrap().role, Role::Developer);
    let entry = fixture
        .entries()
        .await
        .into_iter()
        .rev()
        .find(|entry| entry.action == "account.create");
    assert_eq!(entry.unwrap().team, Some(team));
}

#[tokio::test]
async fn an_invitation_that_does_not_hold_makes_no_account() {
    let fixture = fixture().await;
    let (accounts, teams) = (&fixture.control.accounts, &fixture.control.teams);
    let ann = fixture.person("ann@x.example").await;
    let team = teams.create(&ann, "Team").await.unwrap().id;
    teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    let link = fixture.link("bob@x.example", "You are invited").await;
    teams.delete(&ann, &team).await.unwrap();
    let bob = SignUpRequest {
        invitation: Some(link),
        ..request("bob@x.example", PASSWORD)
    };
    assert_eq!(
        code(accounts.sign_up(&anybody(), bob).await),
        "invitation_withdrawn"
    );
    let login = Fixture::login("bob@x.example", PASSWORD);
    assert_eq!(
        code(accounts.login(&anybody(), &login).await),
        "invalid_credentials"
    );
}

#[tokio::test]
async fn who_fails_has_to_wait_and_nobody_learns_who_is_there() {
    let fixture = fixture_with(|config| config.lockout_account = 3).await;
    let accounts = &fixture.control.accounts;
    fixture.account("ann@x.example").await;
    let mut answers = Vec::new();
    for email in ["ann@x.example", "nobody@x.example", "no address"] {
        let mut of_one = Vec::new();
        for _ in 0..5 {
            let login = Fixture::login(email, "wrong password");
            of_one.push(accounts.login(&anybody(), &login).await.unwrap_err());
        }
        answers.push(of_one);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    let codes: Vec<_> = answers[0].iter().map(ControlError::code).collect();
    let (wrong, wait) = ("invalid_credentials", "too_many_attempts");
    assert_eq!(codes, [wrong, wrong, wrong, wait, wait]);
    assert_eq!(answers[0][3].retry_after(), Some(Duration::from_secs(1)));
    // Also with the right password, from wherever; and it doubles.
    let right = Fixture::login("ann@x.example", PASSWORD);
    let elsewhere = Actor::anybody(Origin::new("2001:db8::1".parse().ok(), ""));
    assert_eq!(code(accounts.login(&elsewhere, &right).await), wait);
    fixture.wait(Duration::from_secs(1));
    let login = Fixture::login("ann@x.example", "wrong password");
    assert_eq!(code(accounts.login(&anybody(), &login).await), wrong);
    let refused = accounts.login(&anybody(), &right).await.unwrap_err();
    assert_eq!(refused, ControlError::TooMany(Duration::from_secs(2)));
    fixture.wait(Duration::from_secs(2));
    assert!(accounts.login(&anybody(), &right).await.is_ok());
    assert!(
        accounts.login(&anybody(), &right).await.is_ok(),
        "all is forgiven"
    );
    let metrics = &fixture.metrics.logins;
    assert_eq!(metrics.of(crate::telemetry::LoginOutcome::Done).get(), 2);
    assert_eq!(metrics.of(crate::telemetry::LoginOutcome::Refused).get(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tries_at_once_are_no_more_than_one_after_another() {
    let fixture = fixture_with(|config| config.lockout_account = 3).await;
    fixture.account("ann@x.example").await;
    let login = Fixture::login("ann@x.example", "wrong password");
    let who = anybody();
    let tries = (0..20).map(|_| fixture.control.accounts.login(&who, &login));
    let answers = futures_util::future::join_all(tries).await;
    let checked = answers
        .into_iter()
        .filter(|answer| matches!(answer, Err(ControlError::InvalidCredentials)));
    assert_eq!(checked.count(), 3);
}

#[tokio::test]
async fn an_address_is_held_off_whatever_accounts_it_tries() {
    let fixture = fixture_with(|config| config.lockout_address = 4).await;
    let accounts = &fixture.control.accounts;
    fixture.account("ann@x.example").await;
    for turn in 0..4 {
        // All of one /64.
        let origin = Origin::new(format!("2001:db8::{turn}").parse().ok(), "");
        let login = Fixture::login(&format!("u{turn}@x.example"), "wrong password");
        let answer = accounts.login(&Actor::anybody(origin), &login).await;
        assert_eq!(code(answer), "invalid_credentials");
    }
    let right = Fixture::login("ann@x.example", PASSWORD);
    let there = Actor::anybody(Origin::new("2001:db8::99".parse().ok(), ""));
    assert_eq!(code(accounts.login(&there, &right).await), "too_many_attempts");
    assert_eq!(code(accounts.login(&anybody(), &right).await), "ok");
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    fixture.account("ann@x.example").await;
    let (ann, tokens) = fixture.signs_in("ann@x.example").await;
    let (_, other) = fixture.signs_in("ann@x.example").await;
    let (old, new) = (secret(PASSWORD), secret("another password"));
    assert_eq!(
        code(accounts.change_password(&ann, &new, &old).await),
        "invalid_credentials"
    );
    assert_eq!(
        code(
            accounts
                .change_password(&ann, &old, &secret("ann@x.example"))
                .await
        ),
        "weak_password"
    );
    accounts.change_password(&ann, &old, &new).await.unwrap();
    let sessions = &fixture.control.sessions;
    assert_eq!(
        code(
            sessions
                .authenticate(tokens.access_token.expose(), origin())
                .await
        ),
        "ok"
    );
    assert_eq!(
        code(sessions.authenticate(other.access_token.expose(), origin()).await),
        "session_ended"
    );
    assert_eq!(
        code(sessions.refresh(&anybody(), &other.refresh_token).await),
        "session_ended"
    );
    assert_eq!(
        code(sessions.refresh(&anybody(), &tokens.refresh_token).await),
        "ok"
    );
    fixture.letter("ann@x.example", "Your password was changed").await;
    let login = Fixture::login("ann@x.example", PASSWORD);
    assert_eq!(
        code(accounts.login(&anybody(), &login).await),
        "invalid_credentials"
    );
    let login = Fixture::login("ann@x.example", "another password");
    assert_eq!(code(accounts.login(&anybody(), &login).await), "ok");
}

#[tokio::test]
async fn a_password_is_reset_once() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    fixture.account("ann@x.example").await;
    let (_, tokens) = fixture.signs_in("ann@x.example").await;
    accounts.request_reset(&anybody(), "ann@x.example").await.unwrap();
    let link = fixture.link("ann@x.example", "Set a new").await;
    assert_eq!(
        code(accounts.reset_password(&anybody(), &link, &secret("short")).await),
        "weak_password"
    );
    assert_eq!(
        code(accounts.verify_email(&anybody(), &link, &secret(PASSWORD)).await),
        "link_invalid",
        "another kind"
    );
    let new = secret("another password");
    let who = anybody();
    let both = tokio::join!(
        accounts.reset_password(&who, &link, &new),
        accounts.reset_password(&who, &link, &new)
    );
    let mut codes = [code(both.0), code(both.1)];
    codes.sort_unstable();
    assert_eq!(codes, ["link_invalid", "ok"]);
    assert_eq!(
        code(
            fixture
                .control
                .sessions
                .refresh(&who, &tokens.refresh_token)
                .await
        ),
        "session_ended"
    );
    assert_eq!(
        code(
            accounts
                .login(&who, &Fixture::login("ann@x.example", "another password"))
                .await
        ),
        "ok"
    );
    // A link expires.
    accounts.request_reset(&who, "ann@x.example").await.unwrap();
    while fixture.link("ann@x.example", "Set a new").await.expose() == link.expose() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let link = fixture.link("ann@x.example", "Set a new").await;
    fixture.wait(Duration::from_hours(1));
    assert_eq!(
        code(accounts.reset_password(&who, &link, &new).await),
        "link_invalid"
    );
}

#[tokio::test]
async fn an_address_is_changed_by_a_link_to_the_new_one() {
    let fixture = fixture().await;
    let accounts = &fixture.control.accounts;
    let ann = fixture.person("ann@x.example").await;
    fixture.account("bob@x.example").await;
    let password = secret(PASSWORD);
    assert_eq!(
        code(
            accounts
                .change_email(&ann, &secret("wrong"), "new@x.example")
                .await
        ),
        "invalid_credentials"
    );
    accounts
        .change_email(&ann, &password, "bob@x.example")
        .await
        .unwrap();
    let link = fixture.link("bob@x.example", "Verify your new").await;
    assert_eq!(
        code(accounts.confirm_email(&anybody(), &link).await),
        "email_taken"
    );
    accounts
        .change_email(&ann, &password, "New@x.example")
        .await
        .unwrap();
    let link = fixture.link("new@x.example", "Verify your new").await;
    accounts.confirm_email(&anybody(), &link).await.unwrap();
    assert_eq!(accounts.get(&ann).await.unwrap().email, "new@x.example");
    let told = fixture
        .letter("ann@x.example", "Your e-mail address was changed")
        .await;
    assert!(told.text.expose().contains("new@x.example"));
    assert_eq!(
        accounts.rename(&ann, " Ann B. ", None).await.unwrap().name,
        "Ann B."
    );
    fixture.signs_in("new@x.example").await;
    fixture.account("ann@x.example").await;
}

#[tokio::test]
async fn an_account_that_owns_apps_stays() {
    let fixture = fixture().await;
    let (accounts, teams) = (&fixture.control.accounts, &fixture.control.teams);
    fixture.account("ann@x.example").await;
    let (ann, tokens) = fixture.signs_in("ann@x.example").await;
    let with_app = teams.create(&ann, "With app").await.unwrap().id;
    let without = teams.create(&ann, "Without").await.unwrap().id;
    let app = store::Draft {
        unique: None,
        keys: vec![team_key(&with_app)],
        expires_ms: None,
        body: serde_json::json!({}),
    };
    fixture.store.insert(Collection::Apps, "shop", app).await.unwrap();
    teams.vouch(&with_app).await.unwrap();
    let password = secret(PASSWORD);
    let refused = accounts.delete(&ann, &password, None).await;
    assert_eq!(refused, Err(ControlError::OwnsApps(vec![with_app.clone()])));
    assert_eq!(code(teams.delete(&ann, &with_app).await), "team_has_apps");
    assert_eq!(code(teams.get(&ann, &with_app).await), "ok", "it is open again");
    let bob = fixture.joins(&ann, &with_app, "bob@x.example", Role::Owner).await;
    assert_eq!(
        code(accounts.delete(&ann, &secret("wrong"), None).await),
        "invalid_credentials"
    );
    accounts.delete(&ann, &password, None).await.unwrap();
    assert_eq!(teams.get(&bob, &with_app).await.unwrap().members, 1);
    assert_eq!(code(teams.vouch(&without).await), "not_found");
    let access = tokens.access_token.expose();
    assert_eq!(
        code(fixture.control.authenticate(access, origin()).await),
        "session_ended"
    );
    assert_eq!(
        code(
            accounts
                .login(&anybody(), &Fixture::login("ann@x.example", PASSWORD))
                .await
        ),
        "invalid_credentials"
    );
    let last = fixture
        .control
        .team_audit(&bob, &with_app, &Search::of(About::Team(with_app.clone())))
        .await;
    assert_eq!(last.unwrap().entries[0].action, "account.delete");
    fixture.account("ann@x.example").await;
}

#[tokio::test]
async fn a_password_is_hashed_anew_when_the_cost_has_grown() {
    let fixture = fixture().await;
    let id = fixture.account("ann@x.example").await;
    let mut config = fixture.config.clone();
    config.password_memory = 16 * 1024;
    let Fixture {
        store,
        time,
        letters,
        metrics,
        tasks,
        ..
    } = &fixture;
    let costly = node(&config, &[SEALING], store, time, letters, metrics, tasks);
    let hash = || async {
        let document = store.get(Collection::Accounts, &id).await.unwrap().unwrap();
        document.body["password"].as_str().unwrap().to_owned()
    };
    assert!(hash().await.contains("m=8,"));
    costly
        .accounts
        .login(&anybody(), &Fixture::login("ann@x.example", PASSWORD))
        .await
        .unwrap();
    assert!(hash().await.contains("m=16,"));
    fixture.signs_in("ann@x.example").await;
    assert!(hash().await.contains("m=16,"), "and never cheaper");
}

use super::*;

#[tokio::test]
async fn a_refresh_token_is_replaced_each_time() {
    let fixture = fixture().await;
    fixture.account("ann@x.example").await;
    let (actor, first) = fixture.signs_in("ann@x.example").await;
    let sessions = &fixture.control.sessions;
    fixture.wait(Duration::from_secs(60));
    let second = sessions.refresh(&anybody(), &first.refresh_token).await.unwrap();
    assert_eq!(
        (second.session.as_str(), second.account.as_str()),
        (first.session.as_str(), first.account.as_str())
    );
    assert_ne!(second.refresh_token.expose(), first.refresh_token.expose());
    let listed = sessions.list(&actor).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].current);
    assert_eq!(
        (listed[0].used_ms, listed[0].ip.as_str()),
        (fixture.now(), "203.0.113.7")
    );
    assert_eq!(listed[0].user_agent, "browser");
    // A moment later it is told to look for the new one, and nothing ends.
    fixture.wait(Duration::from_secs(9));
    assert_eq!(
        code(sessions.refresh(&anybody(), &first.refresh_token).await),
        "refresh_rotated"
    );
    let third = sessions.refresh(&anybody(), &second.refresh_token).await.unwrap();
    // The very first is too old for that: somebody else has it.
    assert_eq!(
        code(sessions.refresh(&anybody(), &first.refresh_token).await),
        "refresh_reused"
    );
    for token in [&first, &second, &third] {
        assert_eq!(
            code(sessions.refresh(&anybody(), &token.refresh_token).await),
            "session_ended"
        );
        let access = token.access_token.expose();
        assert_eq!(
            code(sessions.authenticate(access, origin()).await),
            "session_ended"
        );
    }
    let last = fixture.entries().await.pop().unwrap();
    assert_eq!(
        (last.action.as_str(), last.target.as_str()),
        ("session.reuse_detected", first.session.as_str())
    );
}

#[tokio::test]
async fn the_token_before_ends_the_session_after_the_grace() {
    let fixture = fixture().await;
    fixture.account("ann@x.example").await;
    let (_, first) = fixture.signs_in("ann@x.example").await;
    let sessions = &fixture.control.sessions;
    let second = sessions.refresh(&anybody(), &first.refresh_token).await.unwrap();
    fixture.wait(Duration::from_secs(10));
    assert_eq!(
        code(sessions.refresh(&anybody(), &first.refresh_token).await),
        "refresh_reused"
    );
    assert_eq!(
        code(sessions.refresh(&anybody(), &second.refresh_token).await),
        "session_ended"
    );
}

#[tokio::test]
async fn made_up_tokens_end_nothing() {
    let fixture = fixture().await;
    fixture.account("ann@x.example").await;
    let (_, tokens) = fixture.signs_in("ann@x.example").await;
    let sessions = &fixture.control.sessions;
    let text = tokens.refresh_token.expose();
    for made_up in [
        text.replacen(".0.", ".1.", 1),
        format!("{text}x"),
        format!("slr_{}.0.x.y", tokens.session),
        "slr_ses_unknown.0.x.y".to_owned(),
        String::new(),
    ] {
        let refused = sessions.refresh(&anybody(), &secret(&made_up)).await;
        assert_eq!(code(refused), "refresh_invalid", "{made_up}");
    }
    assert!(sessions.refresh(&anybody(), &tokens.refresh_token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_refreshes_at_once_one_succeeds_and_the_session_lives() {
    let fixture = fixture().await;
    fixture.account("ann@x.example").await;
    let (_, tokens) = fixture.signs_in("ann@x.example").await;
    let other = fixture.other_node();
    let (a, b) = (fixture.control.sessions.clone(), other.sessions.clone());
    let who = anybody();
    let results = futures_util::future::join_all((0..8).map(|turn| {
        let sessions = if turn % 2 == 0 { a.clone() } else { b.clone() };
        let (who, token) = (who.clone(), tokens.refresh_token.clone());
        async move { sessions.refresh(&who, &token).await }
    }))
    .await;
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(good.len(), 1);
    assert!(bad.into_iter().all(|result| code(result) == "refresh_rotated"));
    let new = good.into_iter().next().unwrap().unwrap();
    assert!(a.refresh(&who, &new.refresh_token).await.is_ok());
}

#[tokio::test]
async fn sessions_end_by_time_however_they_are_used() {
    let fixture = fixture().await;
    fixture.account("ann@x.example").await;
    let (_, mut tokens) = fixture.signs_in("ann@x.example").await;
    let sessions = &fixture.control.sessions;
    let start = fixture.now();
    for _ in 0..6 {
        fixture.wait(Duration::from_hours(24 * 14 - 1));
        tokens = sessions.refresh(&anybody(), &tokens.refresh_token).await.unwrap();
    }
    assert_eq!(tokens.refresh_expires_ms, start + 90 * 86_400_000);
    fixture.wait(Duration::from_hours(24 * 14 - 1));
    assert_eq!(
        code(sessions.refresh(&anybody(), &tokens.refresh_token).await),
        "session_ended"
    );

    let (_, idle) = fixture.signs_in("ann@x.example").await;
    fixture.wait(Duration::from_hours(24 * 14));
    assert_eq!(
        code(sessions.refresh(&anybody(), &idle.refresh_token).await),
        "session_ended"
    );
    let access = idle.access_token.expose();
    assert_eq!(
        code(sessions.authenticate(access, origin()).await),
        "token_expired"
    );
}

#[tokio::test]
async fn an_ended_session_is_refused_here_at_once_and_elsewhere_soon() {
    let fixture = fixture().await;
    fixture.account("ann@x.example").await;
    let (actor, tokens) = fixture.signs_in("ann@x.example").await;
    let other = fixture.other_node();
    let access = tokens.access_token.expose();
    assert_eq!(other.authenticate(access, origin()).await, Ok(actor.clone()));
    fixture.control.sessions.logout(&actor).await.unwrap();
    assert_eq!(
        code(fixture.control.authenticate(access, origin()).await),
        "session_ended"
    );
    assert!(
        other.authenticate(access, origin()).await.is_ok(),
        "it looked a moment ago"
    );
    fixture.wait(Duration::from_secs(30));
    assert_eq!(code(other.authenticate(access, origin()).await), "session_ended");
    assert_eq!(
        code(other.authenticate("x.y.z", origin()).await),
        "unauthenticated"
    );
}

#[tokio::test]
async fn one_or_all_sessions_are_ended() {
    let fixture = fixture_with(|config| config.max_sessions = 3).await;
    fixture.account("ann@x.example").await;
    let bob = fixture.person("bob@x.example").await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(fixture.signs_in("ann@x.example").await);
        fixture.wait(Duration::from_secs(1));
    }
    let sessions = &fixture.control.sessions;
    let there = |at: usize| sessions.authenticate(all[at].1.access_token.expose(), origin());
    assert_eq!(
        code(there(0).await),
        "session_ended",
        "the fourth ended the oldest"
    );
    assert_eq!(sessions.list(&all[3].0).await.unwrap().len(), 3);
    assert_eq!(code(sessions.end(&bob, &all[1].1.session).await), "not_found");
    sessions.end(&all[3].0, &all[1].1.session).await.unwrap();
    assert_eq!(code(there(1).await), "session_ended");
    assert_eq!(code(there(2).await), "ok");
    sessions.logout_everywhere(&all[3].0).await.unwrap();
    for at in [2, 3] {
        assert_eq!(code(there(at).await), "session_ended");
        let refreshed = sessions.refresh(&anybody(), &all[at].1.refresh_token).await;
        assert_eq!(code(refreshed), "session_ended");
    }
    assert!(sessions.list(&bob).await.unwrap().len() == 1);
    assert_eq!(code(sessions.list(&anybody()).await), "unauthenticated");
}

use std::collections::BTreeMap;

use futures_util::StreamExt;

use super::*;

#[tokio::test]
async fn every_change_is_one_entry_that_tells_who_and_what() {
    let fixture = fixture().await;
    let Control {
        accounts,
        sessions,
        teams,
        tokens,
        ..
    } = &*fixture.control;
    let request = SignUpRequest {
        email: "ann@x.example".into(),
        name: "Ann".into(),
        password: secret(PASSWORD),
        invitation: None,
    };
    let mut expected = Vec::new();
    let mut did = |action: &'static str| expected.push(action);
    accounts.sign_up(&anybody(), request).await.unwrap();
    did("account.create");
    let link = fixture.link("ann@x.example", "Verify").await;
    accounts
        .verify_email(&anybody(), &link, &secret(PASSWORD))
        .await
        .unwrap();
    did("account.verify");
    let (ann, kept) = fixture.signs_in("ann@x.example").await;
    did("session.begin");
    sessions.refresh(&anybody(), &kept.refresh_token).await.unwrap();
    let (other, _) = fixture.signs_in("ann@x.example").await;
    did("session.begin");
    sessions.logout(&other).await.unwrap();
    did("session.end");
    accounts.rename(&ann, "Anna", None).await.unwrap();
    did("account.rename");
    accounts
        .change_password(&ann, &secret(PASSWORD), &secret("another password"))
        .await
        .unwrap();
    did("account.password");
    let team = teams.create(&ann, "Team").await.unwrap().id;
    did("team.create");
    teams.rename(&ann, &team, "New", None).await.unwrap();
    did("team.rename");
    let bob = fixture.account("bob@x.example").await;
    did("account.create");
    let (bob_in, _) = fixture.signs_in("bob@x.example").await;
    did("session.begin");
    teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    did("invitation.create");
    let link = fixture.link("bob@x.example", "You are invited").await;
    teams.accept(&bob_in, &link).await.unwrap();
    did("invitation.accept");
    teams.set_role(&ann, &team, &bob, Role::Admin).await.unwrap();
    did("member.role");
    let new = tokens
        .create(
            &bob_in,
            TokenRequest {
                name: "CI".into(),
                scopes: vec![Permission::TeamWrite],
                team: Some(team.clone()),
                expires_ms: fixture.now() + 1000,
            },
        )
        .await
        .unwrap();
    did("token.create");
    let by_token = fixture
        .control
        .authenticate(new.token.expose(), origin())
        .await
        .unwrap();
    teams.rename(&by_token, &team, "Newer", None).await.unwrap();
    did("team.rename");
    teams.transfer(&ann, &team, &bob).await.unwrap();
    did("team.transfer");
    teams.leave(&ann, &team).await.unwrap();
    did("member.leave");
    tokens.revoke(&bob_in, &new.view.id).await.unwrap();
    did("token.revoke");
    teams.delete(&bob_in, &team).await.unwrap();
    did("team.delete");
    sessions.logout_everywhere(&bob_in).await.unwrap();
    did("session.end_all");

    let entries = fixture.entries().await;
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, expected);
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
    let role = &entries[13];
    assert_eq!(
        (role.actor_kind.as_str(), role.actor.as_str()),
        ("account", ann.account().unwrap())
    );
    assert_eq!(
        (role.target_kind.as_str(), role.target.as_str()),
        ("account", bob.as_str())
    );
    assert_eq!(role.team.as_deref(), Some(team.as_str()));
    assert_eq!(
        (role.ip.as_str(), role.user_agent.as_str()),
        ("203.0.113.7", "browser")
    );
    assert_eq!(role.changes, [Change::new("role", "viewer", "admin")]);
    let by_token = &entries[15];
    assert_eq!(
        (by_token.actor_kind.as_str(), by_token.token.as_deref()),
        ("token", Some(new.view.id.as_str()))
    );
    assert_eq!(entries[9].actor_kind, "system");
    // No secret is in any of them.
    let text = serde_json::to_string(&entries).unwrap();
    let secrets = [
        PASSWORD,
        "another password",
        link.expose(),
        new.token.expose(),
        kept.refresh_token.expose(),
    ];
    assert!(secrets.iter().all(|secret| !text.contains(secret)));
    assert!(!text.contains("argon2"));
}

#[tokio::test]
async fn the_log_is_read_by_team_actor_target_and_time() {
    let fixture = fixture().await;
    let (team, members) = fixture.team_of_all_roles().await;
    let (control, teams) = (&fixture.control, &fixture.control.teams);
    let (admin, owner) = (&members[2].1, &members[3].1);
    let other = teams.create(owner, "Other").await.unwrap().id;
    let start = fixture.now() + 1000;
    for turn in 0..25 {
        fixture.wait(Duration::from_secs(1));
        let by = if turn % 5 == 0 { admin } else { owner };
        teams
            .rename(by, &team, &format!("Name {turn}"), None)
            .await
            .unwrap();
    }
    let of_team = |about: About| {
        let mut search = Search::of(about);
        search.limit = 10;
        search
    };
    // Pages, in both directions.
    for newest_first in [true, false] {
        let mut search = of_team(About::Team(team.clone()));
        (search.newest_first, search.from_ms) = (newest_first, Some(start));
        let mut names = Vec::new();
        let mut pages = 0;
        loop {
            let page = control.team_audit(admin, &team, &search).await.unwrap();
            names.extend(
                page.entries
                    .iter()
                    .map(|entry| entry.changes[0].new.as_str().unwrap().to_owned()),
            );
            pages += 1;
            match page.cursor {
                Some(cursor) => search.cursor = Some(cursor),
                None => break,
            }
        }
        let mut expected: Vec<_> = (0..25).map(|turn| format!("Name {turn}")).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!((names, pages), (expected, 3));
    }
    // A range of time: from the sixth on, before the eleventh.
    let mut search = of_team(About::TeamActor(
        team.clone(),
        admin.account().unwrap().to_owned(),
    ));
    (search.from_ms, search.to_ms) = (Some(start + 5_000), Some(start + 11_000));
    let page = control.team_audit(admin, &team, &search).await.unwrap();
    let names: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.changes[0].new.clone())
        .collect();
    assert_eq!(names, ["Name 10", "Name 5"]);
    let target = About::TeamTarget(team.clone(), members[0].1.account().unwrap().to_owned());
    teams
        .remove(owner, &team, members[0].1.account().unwrap())
        .await
        .unwrap();
    let page = control.team_audit(admin, &team, &of_team(target)).await.unwrap();
    let actions: Vec<_> = page.entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["member.remove"]);
    // Nothing of another team, or of nobody's.
    for about in [
        About::Team(other.clone()),
        About::All,
        About::Actor("x".into()),
        About::Target(team.clone()),
    ] {
        assert_eq!(
            code(control.team_audit(owner, &team, &of_team(about)).await),
            "not_found"
        );
    }
    let own = control.own_audit(admin, of_team(About::All)).await.unwrap();
    assert!(
        own.entries
            .iter()
            .all(|entry| entry.actor == admin.account().unwrap())
    );
    assert!(own.entries.iter().any(|entry| entry.action == "session.begin"));
}

#[tokio::test]
async fn an_export_has_every_line_once() {
    let fixture = fixture().await;
    let ann = fixture.person("ann@x.example").await;
    let team = fixture.control.teams.create(&ann, "Team").await.unwrap().id;
    for turn in 0..1050 {
        let deed = Deed::new("test.done", "thing", &turn.to_string()).in_team(&team);
        fixture.control.audit.write(&operator(), deed).await.unwrap();
    }
    let search = Search {
        newest_first: false,
        ..Search::of(About::Team(team.clone()))
    };
    let pages = fixture
        .control
        .export_team_audit(&ann, &team, search)
        .await
        .unwrap();
    let pages: Vec<_> = pages.map(Result::unwrap).collect().await;
    assert_eq!(pages.len(), 2);
    let mut seen = BTreeMap::new();
    for line in pages.concat().lines() {
        let entry: Entry = serde_json::from_str(line).unwrap();
        *seen.entry(entry.id).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 1051);
    assert!(seen.values().all(|count| *count == 1));
}

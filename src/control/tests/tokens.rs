use super::*;

impl Fixture {
    fn token_request(&self, scopes: &[Permission], team: Option<&str>) -> TokenRequest {
        TokenRequest {
            name: "CI".to_owned(),
            scopes: scopes.to_vec(),
            team: team.map(str::to_owned),
            expires_ms: self.now() + 86_400_000,
        }
    }

    async fn token(&self, actor: &Actor, scopes: &[Permission], team: Option<&str>) -> NewToken {
        let request = self.token_request(scopes, team);
        self.control.tokens.create(actor, request).await.unwrap()
    }

    async fn presents(&self, token: &NewToken) -> Result<Actor, ControlError> {
        self.control.authenticate(token.token.expose(), origin()).await
    }
}

#[tokio::test]
async fn a_token_may_what_its_owner_and_its_scopes_may() {
    let fixture = fixture().await;
    let (team, members) = fixture.team_of_all_roles().await;
    let teams = &fixture.control.teams;
    let developer = &members[1].1;
    let token = fixture
        .token(developer, &[Permission::TeamRead, Permission::TeamWrite], None)
        .await;
    assert!(token.token.expose().starts_with("slp_"));
    assert!(!format!("{token:?}").contains(token.token.expose()));
    let actor = fixture.presents(&token).await.unwrap();
    assert_eq!(actor.account(), developer.account());
    assert_eq!(code(teams.get(&actor, &team).await), "ok");
    assert_eq!(code(teams.members(&actor, &team).await), "scope_missing");
    assert_eq!(
        code(teams.rename(&actor, &team, "New", None).await),
        "forbidden",
        "the owner may not"
    );
    assert_eq!(teams.list(&actor).await.unwrap().len(), 1);
    // What concerns the account is for who is signed in.
    assert_eq!(
        code(fixture.control.sessions.list(&actor).await),
        "session_required"
    );
    assert_eq!(
        code(fixture.control.tokens.list(&actor).await),
        "session_required"
    );
    assert_eq!(code(teams.leave(&actor, &team).await), "session_required");
    assert_eq!(code(teams.create(&actor, "Mine").await), "session_required");
    let request = fixture.token_request(&[Permission::TeamRead], None);
    assert_eq!(
        code(fixture.control.tokens.create(&actor, request).await),
        "session_required"
    );
    assert_eq!(code(fixture.control.accounts.get(&actor).await), "ok");
    // The owner's role counts as it is now.
    let owner = &members[3].1;
    teams
        .set_role(owner, &team, developer.account().unwrap(), Role::Admin)
        .await
        .unwrap();
    assert_eq!(code(teams.rename(&actor, &team, "New", None).await), "ok");
    teams
        .remove(owner, &team, developer.account().unwrap())
        .await
        .unwrap();
    assert_eq!(code(teams.get(&actor, &team).await), "not_found");
}

#[tokio::test]
async fn a_token_for_one_team_is_for_no_other() {
    let fixture = fixture().await;
    let teams = &fixture.control.teams;
    let ann = fixture.person("ann@x.example").await;
    let one = teams.create(&ann, "One").await.unwrap().id;
    let two = teams.create(&ann, "Two").await.unwrap().id;
    let token = fixture.token(&ann, &[Permission::TeamRead], Some(&one)).await;
    let actor = fixture.presents(&token).await.unwrap();
    assert_eq!(code(teams.get(&actor, &one).await), "ok");
    assert_eq!(code(teams.get(&actor, &two).await), "not_found");
    assert_eq!(teams.list(&actor).await.unwrap().len(), 1);
    let eve = fixture.person("eve@x.example").await;
    let request = fixture.token_request(&[Permission::TeamRead], Some(&one));
    assert_eq!(
        code(fixture.control.tokens.create(&eve, request).await),
        "not_found"
    );
}

#[tokio::test]
async fn tokens_are_listed_expire_and_are_revoked() {
    let fixture = fixture_with(|config| config.max_tokens = 2).await;
    let tokens = &fixture.control.tokens;
    let ann = fixture.person("ann@x.example").await;
    let scopes = [Permission::AppsRead, Permission::AppsRead];
    let first = fixture.token(&ann, &scopes, None).await;
    assert_eq!(first.view.scopes, [Permission::AppsRead]);
    let second = fixture.token(&ann, &scopes, None).await;
    for (adjust, why) in [
        ((|_| ()) as fn(&mut TokenRequest), "limit_reached"),
        (|request| request.scopes.clear(), "invalid_input"),
        (|request| request.expires_ms = 0, "invalid_input"),
        (|request| request.expires_ms += 400 * 86_400_000, "invalid_input"),
        (|request| request.name.clear(), "invalid_input"),
    ] {
        let mut request = fixture.token_request(&scopes, None);
        adjust(&mut request);
        assert_eq!(code(tokens.create(&ann, request).await), why);
    }
    let document = fixture
        .store
        .get(Collection::ApiTokens, &first.view.id)
        .await
        .unwrap()
        .unwrap();
    assert!(!document.body.to_string().contains(first.token.expose()));
    // That it was used is written once a minute.
    assert_eq!(tokens.list(&ann).await.unwrap()[0].used_ms, None);
    for (wait, writes) in [(0, 1), (30, 1), (29, 1), (1, 2), (59, 2)] {
        fixture.wait(Duration::from_secs(wait));
        fixture.presents(&first).await.unwrap();
        let document = fixture
            .store
            .get(Collection::ApiTokens, &first.view.id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(document.revision, 1 + writes, "{wait}");
    }
    let eve = fixture.person("eve@x.example").await;
    assert_eq!(code(tokens.revoke(&eve, &first.view.id).await), "not_found");
    tokens.revoke(&ann, &first.view.id).await.unwrap();
    assert_eq!(code(fixture.presents(&first).await), "unauthenticated");
    assert_eq!(tokens.list(&ann).await.unwrap().len(), 1);
    fixture.wait(Duration::from_hours(24));
    assert_eq!(code(fixture.presents(&second).await), "token_expired");
    for wrong in ["slp_", "slp_abc", "slp_ä"] {
        assert_eq!(
            code(fixture.control.authenticate(wrong, origin()).await),
            "unauthenticated"
        );
    }
}

#[tokio::test]
async fn a_team_revokes_its_members_tokens() {
    let fixture = fixture().await;
    let (team, members) = fixture.team_of_all_roles().await;
    let tokens = &fixture.control.tokens;
    let (viewer, admin, owner) = (&members[0].1, &members[2].1, &members[3].1);
    let of_viewer = fixture.token(viewer, &[Permission::TeamRead], Some(&team)).await;
    let of_owner = fixture.token(owner, &[Permission::TeamRead], Some(&team)).await;
    let everywhere = fixture.token(viewer, &[Permission::TeamRead], None).await;
    let listed = tokens.of_team(admin, &team).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        code(tokens.revoke_of_team(viewer, &team, &of_owner.view.id).await),
        "forbidden"
    );
    assert_eq!(
        code(tokens.revoke_of_team(admin, &team, &of_owner.view.id).await),
        "role_too_low"
    );
    assert_eq!(
        code(tokens.revoke_of_team(admin, &team, &everywhere.view.id).await),
        "not_found"
    );
    tokens
        .revoke_of_team(admin, &team, &of_viewer.view.id)
        .await
        .unwrap();
    assert_eq!(code(fixture.presents(&of_viewer).await), "unauthenticated");
    // An account that is deleted takes its tokens with it.
    fixture
        .control
        .accounts
        .delete(viewer, &secret(PASSWORD), None)
        .await
        .unwrap();
    assert_eq!(code(fixture.presents(&everywhere).await), "unauthenticated");
}

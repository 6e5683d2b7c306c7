use super::*;
use crate::control::permission::tests::EXPECTED;

#[tokio::test]
async fn every_cell_of_the_table_is_what_the_services_do() {
    let fixture = fixture().await;
    let (team, members) = fixture.team_of_all_roles().await;
    let teams = &fixture.control.teams;
    let stranger = fixture.person("stranger@x.example").await;
    for ((name, cells), (permission, ..)) in EXPECTED.iter().zip(PERMISSIONS) {
        for ((role, member), cell) in members.iter().zip(cells) {
            let expected = if *cell == 1 { "ok" } else { "forbidden" };
            let answer = teams.authorize(member, &team, *permission).await;
            assert_eq!(code(answer), expected, "{} {name}", role.as_str());
            // A token with all scopes may what its owner may; with the others none.
            let token = |scopes: Vec<Permission>| Actor {
                who: Who::Token {
                    account: member.account().unwrap().to_owned(),
                    token: "t".into(),
                    scopes,
                    team: None,
                },
                origin: origin(),
            };
            let all = PERMISSIONS.iter().map(|(permission, ..)| *permission);
            let whole = token(all.clone().collect());
            assert_eq!(code(teams.authorize(&whole, &team, *permission).await), expected);
            let others = token(all.filter(|other| other != permission).collect());
            assert_eq!(
                code(teams.authorize(&others, &team, *permission).await),
                "scope_missing"
            );
        }
        assert_eq!(
            code(teams.authorize(&stranger, &team, *permission).await),
            "not_found"
        );
        assert_eq!(
            code(teams.authorize(&anybody(), &team, *permission).await),
            "unauthenticated"
        );
        assert_eq!(code(teams.authorize(&operator(), &team, *permission).await), "ok");
    }
}

/// The methods ask for the permissions that they say.
#[tokio::test]
async fn the_methods_hold_to_the_table() {
    let fixture = fixture().await;
    let (team, members) = fixture.team_of_all_roles().await;
    let (teams, tokens) = (&fixture.control.teams, &fixture.control.tokens);
    let control = &fixture.control;
    let search = Search::of(About::Team(team.clone()));
    for (role, member) in &members {
        let may = |permission| {
            if allows(*role, permission) {
                "ok"
            } else {
                "forbidden"
            }
        };
        assert_eq!(code(teams.get(member, &team).await), may(Permission::TeamRead));
        assert_eq!(
            code(teams.rename(member, &team, "Team", None).await),
            may(Permission::TeamWrite)
        );
        assert_eq!(
            code(teams.members(member, &team).await),
            may(Permission::MembersRead)
        );
        assert_eq!(
            code(teams.invitations(member, &team).await),
            may(Permission::InvitationsRead)
        );
        let guest = format!("guest-{}@x.example", role.as_str());
        let invited = teams.invite(member, &team, &guest, Role::Viewer).await;
        assert_eq!(code(invited.clone()), may(Permission::InvitationsCreate));
        let id = invited.map_or_else(|_| "inv_none".to_owned(), |invited| invited.id);
        assert_eq!(
            code(teams.withdraw(member, &team, &id).await),
            may(Permission::InvitationsRevoke)
        );
        assert_eq!(
            code(tokens.of_team(member, &team).await),
            may(Permission::TokensRead)
        );
        let audit = control.team_audit(member, &team, &search).await;
        assert_eq!(code(audit), may(Permission::AuditRead));
        let export = control.export_team_audit(member, &team, search.clone()).await;
        assert_eq!(export.is_ok(), allows(*role, Permission::AuditExport));
        if *role != Role::Owner {
            assert_eq!(code(teams.delete(member, &team).await), "forbidden");
            let to = member.account().unwrap();
            assert_eq!(code(teams.transfer(member, &team, to).await), "forbidden");
        }
    }
}

#[tokio::test]
async fn nobody_raises_himself_or_touches_one_above() {
    let fixture = fixture().await;
    let (team, members) = fixture.team_of_all_roles().await;
    let teams = &fixture.control.teams;
    let id = |at: usize| members[at].1.account().unwrap();
    for (by, (role, member)) in members.iter().enumerate() {
        for (at, (old, _)) in members.iter().enumerate() {
            for new in Role::ALL {
                // What is allowed would change the team under the loop: ask for what changes nothing.
                let changes = *old != new;
                let allowed = allows(*role, Permission::MembersWrite) && *old <= *role && new <= *role;
                if allowed && changes {
                    continue;
                }
                let expected = match (allows(*role, Permission::MembersWrite), allowed) {
                    (false, _) => "forbidden",
                    (true, false) => "role_too_low",
                    (true, true) => "ok",
                };
                let answer = teams.set_role(member, &team, id(at), new).await;
                assert_eq!(code(answer), expected, "{by} makes {at} {new:?}");
            }
        }
    }
    let admin = &members[2].1;
    assert_eq!(code(teams.remove(admin, &team, id(3)).await), "role_too_low");
    assert_eq!(
        code(teams.invite(admin, &team, "a@x.example", Role::Owner).await),
        "role_too_low"
    );
    assert_eq!(
        code(teams.set_role(admin, &team, "acc_none", Role::Viewer).await),
        "not_found"
    );
    teams.set_role(admin, &team, id(0), Role::Admin).await.unwrap();
    teams.remove(admin, &team, id(1)).await.unwrap();
    let left: Vec<_> = teams.members(admin, &team).await.unwrap();
    let roles: Vec<_> = left
        .iter()
        .map(|member| (member.email.as_str(), member.role))
        .collect();
    assert_eq!(
        roles,
        [
            ("owner@x.example", Role::Owner),
            ("viewer@x.example", Role::Admin),
            ("admin@x.example", Role::Admin),
        ]
    );
    assert_eq!(code(teams.get(&members[1].1, &team).await), "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_last_owners_who_leave_at_once_one_stays() {
    let fixture = fixture().await;
    let ann = fixture.person("ann@x.example").await;
    let other = fixture.other_node();
    let bob = fixture.person("bob@x.example").await;
    for turn in 0..10 {
        let team = fixture.control.teams.create(&ann, "Team").await.unwrap().id;
        fixture
            .control
            .teams
            .invite(&ann, &team, "bob@x.example", Role::Owner)
            .await
            .unwrap();
        while fixture.letters_to("bob@x.example") <= turn {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let link = fixture.link("bob@x.example", "You are invited").await;
        fixture.control.teams.accept(&bob, &link).await.unwrap();
        let both = tokio::join!(
            fixture.control.teams.leave(&ann, &team),
            other.teams.leave(&bob, &team)
        );
        let mut codes = [code(both.0), code(both.1)];
        codes.sort_unstable();
        assert_eq!(codes, ["last_owner", "ok"]);
        let stays = [&ann, &bob].into_iter();
        let mut left = 0;
        for person in stays {
            left += usize::from(other.teams.get(person, &team).await.is_ok());
        }
        assert_eq!(left, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_is_used_once_by_whom_it_is_for() {
    let fixture = fixture().await;
    let teams = &fixture.control.teams;
    let ann = fixture.person("ann@x.example").await;
    let team = teams.create(&ann, "Team").await.unwrap().id;
    let (bob, eve) = (
        fixture.person("bob@x.example").await,
        fixture.person("eve@x.example").await,
    );
    let made = teams
        .invite(&ann, &team, "Bob@x.example", Role::Developer)
        .await
        .unwrap();
    assert_eq!(
        (made.email.as_str(), made.role),
        ("bob@x.example", Role::Developer)
    );
    assert_eq!(teams.invitations(&ann, &team).await.unwrap(), [made]);
    let link = fixture
        .link("bob@x.example", "You are invited to the team \"Team\"")
        .await;
    assert_eq!(code(teams.accept(&eve, &link).await), "invitation_not_yours");
    assert_eq!(code(teams.accept(&eve, &secret("made up")).await), "link_invalid");
    let both = tokio::join!(teams.accept(&bob, &link), teams.accept(&bob, &link));
    let mut codes = [code(both.0), code(both.1)];
    codes.sort_unstable();
    assert_eq!(codes.iter().filter(|code| **code == "ok").count(), 1, "{codes:?}");
    assert_eq!(code(teams.accept(&bob, &link).await), "link_invalid");
    assert!(teams.invitations(&ann, &team).await.unwrap().is_empty());
    assert_eq!(
        code(teams.invite(&ann, &team, "bob@x.example", Role::Viewer).await),
        "already_member"
    );
    // Who was removed does not come back by the same link.
    teams.remove(&ann, &team, bob.account().unwrap()).await.unwrap();
    let again = teams.accept(&bob, &link).await;
    assert_eq!(code(again), "link_invalid");
}

/// An acceptance that ended half way can be finished by who began it, and by nobody else.
#[tokio::test]
async fn a_half_accepted_invitation_is_finished_or_forgotten() {
    let fixture = fixture().await;
    let teams = &fixture.control.teams;
    let ann = fixture.person("ann@x.example").await;
    let team = teams.create(&ann, "Team").await.unwrap().id;
    let bob = fixture.person("bob@x.example").await;
    let made = teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    let link = fixture.link("bob@x.example", "You are invited").await;
    assert_eq!(code(teams.claim(&made.id, "acc_other").await), "ok");
    assert_eq!(code(teams.accept(&bob, &link).await), "invitation_used");
    let made = teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    while fixture.letters_to("bob@x.example") < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let link = fixture.link("bob@x.example", "You are invited").await;
    let id = bob.account().unwrap();
    teams.claim(&made.id, id).await.unwrap();
    assert_eq!(code(teams.accept(&bob, &link).await), "ok");
    // Half way the other way: a member, and the invitation is still there.
    teams.remove(&ann, &team, id).await.unwrap();
    let made = teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    while fixture.letters_to("bob@x.example") < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let link = fixture.link("bob@x.example", "You are invited").await;
    let stored = fixture
        .store
        .get(Collection::Invitations, &made.id)
        .await
        .unwrap()
        .unwrap();
    teams.accept(&bob, &link).await.unwrap();
    fixture.store.put(Collection::Invitations, stored).await.unwrap();
    teams.claim(&made.id, id).await.unwrap();
    teams.remove(&ann, &team, id).await.unwrap();
    assert_eq!(code(teams.accept(&bob, &link).await), "link_invalid");
}

#[tokio::test]
async fn invitations_end() {
    let fixture = fixture_with(|config| (config.max_invitations, config.max_members) = (2, 3)).await;
    let teams = &fixture.control.teams;
    let ann = fixture.person("ann@x.example").await;
    let team = teams.create(&ann, "Team").await.unwrap().id;
    let admin = fixture.joins(&ann, &team, "admin@x.example", Role::Admin).await;
    let bob = fixture.person("bob@x.example").await;
    // Withdrawn.
    let made = teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    let link = fixture.link("bob@x.example", "You are invited").await;
    teams.withdraw(&ann, &team, &made.id).await.unwrap();
    assert_eq!(code(teams.withdraw(&ann, &team, &made.id).await), "not_found");
    assert_eq!(code(teams.accept(&bob, &link).await), "link_invalid");
    // Replaced by another.
    let before = fixture.letters_to("bob@x.example");
    teams
        .invite(&ann, &team, "bob@x.example", Role::Viewer)
        .await
        .unwrap();
    while fixture.letters_to("bob@x.example") == before {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let first = fixture.link("bob@x.example", "You are invited").await;
    teams
        .invite(&admin, &team, "bob@x.example", Role::Developer)
        .await
        .unwrap();
    while fixture.letters_to("bob@x.example") == before + 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(code(teams.accept(&bob, &first).await), "link_invalid");
    let second = fixture.link("bob@x.example", "You are invited").await;
    // Who has invited may not any more.
    teams
        .set_role(&ann, &team, admin.account().unwrap(), Role::Viewer)
        .await
        .unwrap();
    assert_eq!(code(teams.accept(&bob, &second).await), "invitation_withdrawn");
    teams
        .set_role(&ann, &team, admin.account().unwrap(), Role::Admin)
        .await
        .unwrap();
    // Too many; too late.
    teams
        .invite(&ann, &team, "c@x.example", Role::Viewer)
        .await
        .unwrap();
    teams
        .invite(&ann, &team, "d@x.example", Role::Viewer)
        .await
        .unwrap();
    assert_eq!(
        code(teams.invite(&ann, &team, "e@x.example", Role::Viewer).await),
        "limit_reached"
    );
    assert_eq!(teams.accept(&bob, &second).await.unwrap().role, Role::Developer);
    let link = fixture.link("c@x.example", "You are invited").await;
    let carl = fixture.person("c@x.example").await;
    assert_eq!(
        code(teams.accept(&carl, &link).await),
        "limit_reached",
        "three are members"
    );
    teams.leave(&bob, &team).await.unwrap();
    assert_eq!(code(teams.accept(&carl, &link).await), "ok", "it was not used up");
    let link = fixture.link("d@x.example", "You are invited").await;
    let dora = fixture.person("d@x.example").await;
    fixture.wait(Duration::from_hours(24 * 7));
    assert_eq!(code(teams.accept(&dora, &link).await), "link_invalid");
    assert!(teams.invitations(&ann, &team).await.unwrap().is_empty());
}

#[tokio::test]
async fn teams_are_made_handed_over_left_and_deleted() {
    let fixture = fixture_with(|config| config.max_teams = 2).await;
    let teams = &fixture.control.teams;
    let ann = fixture.person("ann@x.example").await;
    assert_eq!(code(teams.create(&anybody(), "Team").await), "unauthenticated");
    assert_eq!(code(teams.create(&ann, " \n").await), "invalid_input");
    let team = teams.create(&ann, " B ").await.unwrap();
    assert_eq!(
        (team.name.as_str(), team.members, team.role),
        ("B", 1, Role::Owner)
    );
    teams.create(&ann, "A").await.unwrap();
    assert_eq!(code(teams.create(&ann, "C").await), "limit_reached");
    let names: Vec<_> = teams
        .list(&ann)
        .await
        .unwrap()
        .into_iter()
        .map(|team| team.name)
        .collect();
    assert_eq!(names, ["A", "B"]);
    let team = team.id;
    assert_eq!(code(teams.leave(&ann, &team).await), "last_owner");
    let bob = fixture.joins(&ann, &team, "bob@x.example", Role::Viewer).await;
    assert_eq!(code(teams.transfer(&ann, &team, "acc_none").await), "not_found");
    teams.transfer(&ann, &team, bob.account().unwrap()).await.unwrap();
    assert_eq!(teams.get(&ann, &team).await.unwrap().role, Role::Admin);
    assert_eq!(teams.rename(&bob, &team, "New", None).await.unwrap().name, "New");
    teams.leave(&ann, &team).await.unwrap();
    assert_eq!(code(teams.leave(&ann, &team).await), "not_found");
    teams.delete(&bob, &team).await.unwrap();
    assert_eq!(code(teams.get(&bob, &team).await), "not_found");
    assert!(teams.list(&bob).await.unwrap().is_empty());
}

/// An app that is made while its team is deleted is seen by the deletion, or finds the team closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_app_outlives_its_team() {
    let fixture = fixture().await;
    let teams = &fixture.control.teams;
    let ann = fixture.person("ann@x.example").await;
    for turn in 0..20 {
        let team = teams.create(&ann, "Team").await.unwrap().id;
        let id = format!("app{turn}");
        let app = store::Draft {
            unique: None,
            keys: vec![team_key(&team)],
            expires_ms: None,
            body: serde_json::json!({}),
        };
        let make = async {
            fixture.store.insert(Collection::Apps, &id, app).await.unwrap();
            teams.vouch(&team).await.is_ok()
        };
        let (made, deleted) = tokio::join!(make, teams.delete(&ann, &team));
        assert!(!(made && deleted.is_ok()), "{turn}");
        if deleted.is_err() {
            assert_eq!(code(deleted), "team_has_apps");
            teams.get(&ann, &team).await.unwrap();
        }
        fixture.store.remove(Collection::Apps, &id, None).await.unwrap();
        let _ = teams.delete(&ann, &team).await;
    }
}

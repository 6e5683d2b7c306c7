//! Accounts that their owners make, find again, move and delete, by the letters that they get.

use std::{fs, path::Path};

use super::{Person, Server, done};
use crate::support::{people::PASSWORD, until};

/// The link of the first letter with one that came after `seen` others; it is to `email`.
async fn link(folder: &Path, email: &str, seen: &mut usize) -> String {
    let (at, text) = until("a letter comes", || async {
        let files = fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        names.retain(|name| name.extension().is_some_and(|end| end == "txt"));
        names.sort();
        let texts = names.iter().map(|name| fs::read_to_string(name).unwrap());
        texts
            .enumerate()
            .skip(*seen)
            .find(|(_, text)| text.contains("#token="))
    })
    .await;
    *seen = at + 1;
    assert!(text.contains(&format!("To: {email}\n")), "{text}");
    let link = text.split_whitespace().find(|word| word.contains("#token="));
    link.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_made_found_again_moved_and_deleted() {
    let letters = tempfile::tempdir().unwrap();
    let folder = letters.path().join("mail");
    let server = Server::start_with(|builder| {
        builder
            .set("control.sign_up", "open")
            .set("mail.transport", "file")
            .set("mail.from", "Slipstream <noreply@x.example>")
            .set("mail.folder", &folder.display().to_string())
    })
    .await;
    let ann = Person::at(server.node.addr);
    let mut seen = 0;
    let said = done(&ann.run_with(
        &["account", "sign-up"],
        &format!("ann@x.example\nAnn\n{PASSWORD}\n"),
    ));
    assert_eq!(said, "a letter is on its way: slipstream account verify\n");
    link(&folder, "ann@x.example", &mut seen).await;
    ann.tells(&["account", "resend", "ann@x.example"]);
    let verify = link(&folder, "ann@x.example", &mut seen).await;
    done(&ann.run_with(&["account", "verify"], &format!("{verify}\n{PASSWORD}\n")));
    ann.login("ann");

    ann.tells(&["account", "forgot", "ann@x.example"]);
    let reset = link(&folder, "ann@x.example", &mut seen).await;
    // What the link holds will do.
    let (_, token) = reset.split_once("#token=").unwrap();
    let new = "another horse battery";
    done(&ann.run_with(&["account", "reset"], &format!("{token}\n{new}\n")));
    let (code, said) = ann.fails(&["account", "show"]);
    assert!(code == 1 && said.starts_with("session_ended: "), "{said}");
    let login = |email: &str| ann.run_with(&["account", "login", "--email", email], &format!("{new}\n"));
    done(&login("ann@x.example"));

    done(&ann.run_with(&["account", "email", "ann@y.example"], &format!("{new}\n")));
    let moved = link(&folder, "ann@y.example", &mut seen).await;
    done(&ann.run_with(&["account", "confirm-email"], &format!("{moved}\n")));
    done(&login("ann@y.example"));

    // Who is invited has the account at once.
    server.operator().tells(&["account", "invite", "bob@x.example"]);
    let invitation = link(&folder, "bob@x.example", &mut seen).await;
    let bob = Person::at(server.node.addr);
    let args = [
        "account",
        "sign-up",
        "--email",
        "bob@x.example",
        "--name",
        "Bob",
        "--invited",
    ];
    let said = done(&bob.run_with(&args, &format!("{invitation}\n{PASSWORD}\n")));
    assert!(said.contains("bob@x.example"), "{said}");
    bob.login("bob");

    assert_eq!(ann.fails(&["account", "delete"]).0, 64);
    let wrong = ann.run_with(&["account", "delete", "--yes"], "wrong horse battery\n");
    assert_eq!(wrong.status.code(), Some(1));
    done(&ann.run_with(&["account", "delete", "--yes"], &format!("{new}\n")));
    assert!(ann.fails(&["account", "show"]).1.starts_with("not signed in"));
    assert_eq!(login("ann@y.example").status.code(), Some(1));
    server.node.stop().await;
}

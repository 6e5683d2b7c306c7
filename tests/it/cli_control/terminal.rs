//! Before a terminal.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use super::{Person, Server};
use crate::support::people::PASSWORD;

/// A command whose standard input is a terminal.
struct Session {
    child: Child,
    keyboard: File,
    said: String,
}

impl Session {
    fn start(person: &Person, args: &[&str], env: &[(&str, &str)]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let terminal =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap();
        let mut command = person.command(args);
        command.envs(env.iter().copied()).stdin(Stdio::from(terminal));
        Self {
            child: command.spawn().unwrap(),
            keyboard: keyboard.into(),
            said: String::new(),
        }
    }

    /// Waits for a question, and types.
    fn answer(&mut self, question: &str, text: &str) {
        let from = self.said.len();
        while !self.said[from..].contains(question) {
            let mut byte = [0];
            let stderr = self.child.stderr.as_mut().unwrap();
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", self.said);
            self.said.push(char::from(byte[0]));
        }
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// The exit code, what it has said and printed, and what the terminal has shown of what was typed.
    fn end(mut self) -> (i32, String, String) {
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut self.said).unwrap();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        let mut shown = Vec::new();
        // Ends with an error, since nobody has the other side any more.
        let _ = self.keyboard.read_to_end(&mut shown);
        (code, self.said, String::from_utf8(shown).unwrap())
    }
}

/// A password is not shown, and can be mended while it is typed; what is no secret is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_shown() {
    let server = Server::start().await;
    let ann = server.stranger("ann");
    let mut login = Session::start(&ann, &["account", "login"], &[]);
    login.answer("E-mail address: ", "ann@x.example\n");
    login.answer("Password: ", &format!("{PASSWORD}xy\u{7f}\u{7f}\n"));
    let (code, said, shown) = login.end();
    assert_eq!(code, 0, "{said}");
    assert!(shown.contains("ann@x.example"), "{shown:?}");
    assert!(
        !shown.contains("horse") && !said.contains("horse"),
        "{shown:?} {said}"
    );

    // Ctrl-C gives up.
    let mut login = Session::start(&ann, &["account", "login", "--email", "ann@x.example"], &[]);
    login.answer("Password: ", "corr\u{3}");
    assert_eq!(login.end().0, 64);
    // A new password is typed twice.
    let mut change = Session::start(&ann, &["account", "password"], &[]);
    change.answer("Password: ", &format!("{PASSWORD}\n"));
    change.answer("New password: ", "another horse battery\n");
    change.answer("again: ", "another house battery\n");
    assert_eq!(change.end().0, 64);
    server.node.stop().await;
}

/// What cannot be undone is asked about.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_is_asked_about() {
    let server = Server::start().await;
    let ann = server.person("ann");
    let team = ann.json(&["team", "create", "Shop"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut delete = Session::start(&ann, &["team", "delete", &team], &[]);
    delete.answer("Type yes: ", "y\n");
    let (code, said, _) = delete.end();
    assert!(code == 1 && said.contains("nothing was done"), "{said}");
    ann.tells(&["team", "show", &team]);
    let mut delete = Session::start(&ann, &["team", "delete", &team], &[]);
    delete.answer("Type yes: ", "yes\n");
    assert_eq!(delete.end().0, 0);
    assert_eq!(ann.fails(&["team", "show", &team]).0, 1);
    server.node.stop().await;
}

/// An app is changed in an editor; what another has changed meanwhile stays, and so does what was written.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_changed_in_an_editor() {
    let server = Server::start().await;
    let ann = server.person("ann");
    ann.shop();
    let editor = |name: &str, script: &str| {
        let path = ann.home.path().join(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.display().to_string()
    };
    let drafts = || {
        let files = fs::read_dir(ann.home.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("slipstream-")).count()
    };
    let edit = |editor: &str| Session::start(&ann, &["app", "edit", "shop"], &[("EDITOR", editor)]).end();

    let renames = editor("renames", r#"sed -i s/Shop/Store/ "$1""#);
    let (code, said, _) = edit(&renames);
    assert_eq!(code, 0, "{said}");
    let app = ann.json(&["app", "show", "shop"]);
    assert_eq!((&app["name"], &app["version"]), (&"Store".into(), &2.into()));
    let (code, said, _) = edit("true");
    assert!(code == 0 && said.contains("nothing was changed"), "{said}");
    assert_eq!(drafts(), 0);

    // Another is quicker.
    let binary = env!("CARGO_BIN_EXE_slipstream");
    let overtaken = editor(
        "overtaken",
        &format!("{binary} app edit shop --set name=Other </dev/null\nsed -i s/Store/Mine/ \"$1\""),
    );
    let (code, said, _) = edit(&overtaken);
    assert!(code == 1 && said.contains("stale: "), "{said}");
    assert_eq!(ann.json(&["app", "show", "shop"])["name"], "Other");
    let kept = said
        .lines()
        .find_map(|line| line.strip_prefix("what you wrote is in "));
    assert!(fs::read_to_string(kept.unwrap()).unwrap().contains("Mine"));
    let (code, said, _) = edit("false");
    assert!(code == 1 && said.contains("the editor ended with"), "{said}");
    let broken = editor("broken", r#"echo '{' > "$1""#);
    assert_eq!(edit(&broken).0, 64);
    server.node.stop().await;
}

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Letter, MailError, Mailer};
use crate::{control::Clock, random, store::BoxFuture, task::Tasks};

/// Writes each letter into a file of its own: for development. Only the owner can read them.
pub struct FileMailer {
    folder: PathBuf,
    from: String,
    tasks: Tasks,
}

impl FileMailer {
    /// Writes into `folder`, which is made if it is not there.
    pub fn new(folder: PathBuf, from: &str, tasks: Tasks) -> Self {
        Self {
            folder,
            from: from.to_owned(),
            tasks,
        }
    }
}

impl Mailer for FileMailer {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), MailError>> {
        Box::pin(async {
            let (folder, text) = (self.folder.clone(), written(&self.from, letter));
            let done = self.tasks.blocking(move || write(&folder, &text)).await;
            match done {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(MailError::Temporary(error.to_string())),
                None => Err(MailError::Temporary("the node is ending".to_owned())),
            }
        })
    }
}

fn written(from: &str, letter: &Letter) -> String {
    let Letter { to, subject, text } = letter;
    format!("From: {from}\nTo: {to}\nSubject: {subject}\n\n{}", text.expose())
}

/// In a file that appears whole, under a name that sorts by time.
fn write(folder: &Path, text: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = format!("{:015}-{}", Clock::system().now_ms(), random::name(6));
    let unfinished = folder.join(format!(".{name}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    fs::rename(unfinished, folder.join(format!("{name}.txt")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Secret;

    #[tokio::test]
    async fn a_letter_becomes_a_file_of_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail");
        let mailer = FileMailer::new(path.clone(), "Us <us@x.example>", Tasks::default());
        let letter = Letter {
            to: "a@b.example".into(),
            subject: "Hello".into(),
            text: Secret::new("text\n"),
        };
        mailer.send(&letter).await.unwrap();
        mailer.send(&letter).await.unwrap();
        let files: Vec<_> = fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 2);
        let mode = files[0].metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let text = fs::read_to_string(files[0].path()).unwrap();
        assert_eq!(
            text,
            "From: Us <us@x.example>\nTo: a@b.example\nSubject: Hello\n\ntext\n"
        );
        assert!(!format!("{letter:?}").contains("text\\n"));
    }
}

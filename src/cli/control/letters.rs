//! Commands of accounts that a letter has a part in, and the end of an account.

use serde_json::{Value, json};

use super::{
    caller::Caller,
    client::{Answer, Call},
    error::Error,
    prompt,
    table::fields,
};
use crate::config::Secret;

/// What stands between a link's page and what it holds.
const BEFORE_TOKEN: &str = "#token=";

/// What a link from a letter holds; what is typed may be the whole link.
fn link() -> Result<Secret, Error> {
    let link = prompt::secret("The link in the letter: ")?;
    let token = link
        .expose()
        .split_once(BEFORE_TOKEN)
        .map(|(_, token)| token.trim());
    Ok(token.map_or_else(|| link.clone(), Secret::new))
}

fn asked(given: Option<String>, question: &str) -> Result<String, Error> {
    given.map_or_else(|| prompt::line(question), Ok)
}

/// What is asked of the server by who has not signed in.
async fn signed_out(caller: &Caller, path: &[&str], body: Value) -> Result<Answer, Error> {
    caller.client.send(&Call::post(path, body), None).await
}

/// Makes an account. With an invitation it is there at once, else a letter tells how it goes on.
pub(super) async fn sign_up(
    caller: &Caller,
    email: Option<String>,
    name: Option<String>,
    invited: bool,
) -> Result<(), Error> {
    let email = asked(email, "E-mail address: ")?;
    let name = asked(name, "Name: ")?;
    let mut body = json!({"email": email, "name": name});
    if invited {
        body["invitation"] = link()?.expose().into();
    }
    body["password"] = prompt::new_secret("Password: ")?.expose().into();
    let answer = signed_out(caller, &["auth", "sign-up"], body).await?;
    if invited {
        let columns = &[("id", "id"), ("email", "email"), ("name", "name")];
        return caller.show(&answer.body, |account| fields(account, columns));
    }
    caller.done("a letter is on its way: slipstream account verify")
}

/// Verifies the address of an account.
pub(super) async fn verify(caller: &Caller) -> Result<(), Error> {
    let token = link()?;
    let password = prompt::secret("Password of the account: ")?;
    let body = json!({"token": token.expose(), "password": password.expose()});
    signed_out(caller, &["auth", "verify"], body).await?;
    caller.done("the address is verified: slipstream account login")
}

/// Has the letter that verifies an address sent again.
pub(super) async fn resend(caller: &Caller, email: &str) -> Result<(), Error> {
    signed_out(caller, &["auth", "verify", "resend"], json!({ "email": email })).await?;
    caller.done("a letter is on its way if the address needs one")
}

/// Has a letter sent that resets a password.
pub(super) async fn forgot(caller: &Caller, email: &str) -> Result<(), Error> {
    signed_out(caller, &["auth", "reset", "request"], json!({ "email": email })).await?;
    caller.done("a letter is on its way if the address has an account: slipstream account reset")
}

/// Sets a new password by such a letter.
pub(super) async fn reset(caller: &Caller) -> Result<(), Error> {
    let token = link()?;
    let password = prompt::new_secret("New password: ")?;
    let body = json!({"token": token.expose(), "password": password.expose()});
    signed_out(caller, &["auth", "reset"], body).await?;
    caller.done("the password is set: slipstream account login")
}

/// Has a letter sent to the address that the account is to have.
pub(super) async fn change_email(caller: &Caller, email: &str) -> Result<(), Error> {
    let password = prompt::secret("Password: ")?;
    let body = json!({"email": email, "password": password.expose()});
    caller.send(&Call::post(&["account", "email"], body)).await?;
    caller.done("a letter is on its way to the new address: slipstream account confirm-email")
}

/// Takes that address.
pub(super) async fn confirm_email(caller: &Caller) -> Result<(), Error> {
    let body = json!({"token": link()?.expose()});
    signed_out(caller, &["auth", "email"], body).await?;
    caller.done("the address is the account's")
}

/// Deletes the account.
pub(super) async fn delete(caller: &Caller, yes: bool) -> Result<(), Error> {
    prompt::confirm("Delete the account, and its teams that have no other owner", yes)?;
    let password = prompt::secret("Password: ")?;
    let call = |code: Option<&Secret>| {
        let mut body = json!({"password": password.expose()});
        if let Some(code) = code {
            body["code"] = code.expose().into();
        }
        Call::post(&["account", "delete"], body)
    };
    match caller.send(&call(None)).await {
        Err(error) if error.code() == Some("second_factor_required") => {
            let code = prompt::secret("Code of the second factor: ")?;
            caller.send(&call(Some(&code))).await?;
        }
        done => drop(done?),
    }
    caller.forget().await?;
    caller.done("the account is deleted")
}

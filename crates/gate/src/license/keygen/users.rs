//! Users of the account.

use doorward_core::{keygen::User, time::Timestamp, user::Email};
use http::Method;
use serde_json::{Map, Value, json};

use super::{Inner, KeygenProvider, encode, in_time};
use crate::license::trouble::Trouble;

/// A user who is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// Made.
    Created(User),
    /// Was there before, or somebody else was faster.
    Known(User),
}

impl KeygenProvider {
    /// The user with this mail address. That they are there proves nothing about who owns it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn find_user(&self, email: &Email) -> Result<Option<User>, Trouble> {
        Ok(in_time(self.0.find_user(email.as_str())).await?.0)
    }

    /// Makes a user without a password; `metadata` has names in lowerCamel or they come back changed. Asking twice is
    /// harmless: nothing is made where the address is known.
    ///
    /// # Errors
    /// [`Trouble`]; after one that leaves open whether it was done, ask again.
    pub async fn create_user(&self, email: &Email, metadata: Map<String, Value>) -> Result<Enrolled, Trouble> {
        in_time(self.0.create_user(email.as_str(), metadata)).await
    }
}

impl Inner {
    /// Also when this was said. There is no filter by address: it stands in the path, in lower case.
    pub(super) async fn find_user(&self, email: &str) -> Result<(Option<User>, Timestamp), Trouble> {
        let email = email.to_lowercase();
        let target = self.target(format_args!("/users/{}", encode(&email)));
        let (said, at) = self.say(Method::GET, &target, None).await?.found();
        let user = said.map(|said| User::read(&said).map_err(Trouble::shape)).transpose()?;
        if let Some(user) = &user
            && user.email.as_ref().is_none_or(|found| found.to_lowercase() != email)
        {
            return Err(Trouble::Shape("the user with another address"));
        }
        Ok((user, at))
    }

    async fn create_user(&self, email: &str, metadata: Map<String, Value>) -> Result<Enrolled, Trouble> {
        let body = json!({
            "data": {"type": "users", "attributes": {"email": email.to_lowercase(), "metadata": metadata}},
        });
        match self.say(Method::POST, &self.target("/users"), Some(&body)).await {
            Ok(said) => match said.found() {
                (Some(said), _) => Ok(Enrolled::Created(User::read(&said).map_err(Trouble::shape)?)),
                (None, _) => Err(Trouble::Shape("the user")),
            },
            // The address is taken, or was a moment ago by somebody else.
            Err(refused @ Trouble::Refused { status: 409 | 422, .. }) => match self.find_user(email).await? {
                (Some(user), _) => Ok(Enrolled::Known(user)),
                (None, _) => Err(refused),
            },
            Err(trouble) => Err(trouble),
        }
    }
}

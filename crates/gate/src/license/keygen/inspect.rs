//! Whether everything fits, for `check`.

use doorward_core::keygen::{AccountKeys, Algorithm, read_account_keys};
use http::Method;

use super::{Inner, KeygenProvider, encode, in_time};
use crate::license::trouble::Trouble;

/// What the server says about itself and us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// `CE` or `EE`, where it says so; not signed.
    pub edition: Option<String>,
    /// How far its clock is ahead of ours, in seconds.
    pub skew: i64,
    /// Pinned keys that are not those that the account shows.
    pub differing: Vec<Algorithm>,
    /// Whether the product is there, as far as the token may see.
    pub knows_product: bool,
}

impl KeygenProvider {
    /// Asks about the account, its keys and the product.
    ///
    /// # Errors
    /// [`Trouble`], whose remedy is for the operator.
    pub async fn inspect(&self) -> Result<Inspection, Trouble> {
        in_time(self.0.inspect()).await
    }
}

impl Inner {
    async fn inspect(&self) -> Result<Inspection, Trouble> {
        let account = self.say(Method::GET, &self.target(""), None).await?;
        let edition = account.headers.get("keygen-edition").and_then(|edition| Some(edition.to_str().ok()?.to_owned()));
        let (said, at) = account.found();
        let said = said.ok_or(Trouble::Shape("the account"))?;
        let shown = read_account_keys(&said).map_err(Trouble::shape)?;
        let shown = AccountKeys::parse(&shown).map_err(|_| Trouble::Shape("`data.meta.keys`"))?;
        let product = self.target(format_args!("/products/{}", encode(&self.product)));
        let (product, _) = self.say(Method::GET, &product, None).await?.found();
        Ok(Inspection {
            edition,
            skew: at.as_secs() - self.clock.now().wall.as_secs(),
            differing: self.keys.differing(&shown),
            knows_product: product.is_some(),
        })
    }
}

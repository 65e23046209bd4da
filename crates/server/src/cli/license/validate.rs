//! `license validate`: what the provider says of one license, now.

use clap::Args;
use doorward_core::license::{Known, LicensePolicy, LicenseState, Verdict, derive};
use doorward_gate::clock::Clock;

use super::{Report, read, verdict};
use crate::{
    cli::{Failure, Out, provider::Provider},
    config::Config,
};

/// Ask the license provider about one license.
#[derive(Debug, Args)]
pub struct Validate {
    /// A license key, the id of a license, or a file that holds one; `-` reads standard input, which keeps a key out of
    /// the list of processes.
    #[arg(value_name = "KEY-OR-ID")]
    subject: String,
}

impl Validate {
    pub(super) async fn run(&self, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
        let text = read(&self.subject)?;
        let name = text.trim();
        if name.is_empty() || name.starts_with("-----BEGIN ") {
            let what = "not the key or id of a license; `doorward license verify` looks at license files";
            return Err(Failure::Wrong(what.to_owned()));
        }
        let provider = Provider::of(config, clock, "`doorward license verify` looks at a key or file without asking")?;
        let said = provider.validate(name).await?;
        let now = clock.now().wall;
        let mut report = Report::default();
        match (&said.license_id, said.state) {
            (_, LicenseState::None) => report.say("license", "there is none with this key or id"),
            (Some(id), _) => report.say("license", id.as_str()),
            (None, _) => {}
        }
        report.say("state", said.state.as_str());
        report.time("said", said.observed_at, now);
        match said.expires_at {
            Some(end) => report.time("expires", end, now),
            None if said.state == LicenseState::None => {}
            None => report.say("expires", "never"),
        }
        let entitlements: Vec<&str> = said.entitlements.iter().map(String::as_str).collect();
        report.say("entitlements", if entitlements.is_empty() { "none".to_owned() } else { entitlements.join(", ") });
        let policy = LicensePolicy { trust_for: config.license.trust_for, grace: config.license.grace };
        let standing = derive(Some(&Known { observation: said, confirmed_at: now }), &policy, now, now);
        report.say("verdict", verdict(&standing, now));
        let is_usable = !matches!(standing.verdict, Verdict::Deny { .. });
        report.json.insert("usable".to_owned(), is_usable.into());
        report.print(out)?;
        if is_usable { Ok(()) } else { Err(Failure::Said(1)) }
    }
}

//! The soak window, in which credentials of the old system are accepted: open or closed, as the host last said.
//!
//! The file allows it ([`crate::policy::LegacyPolicy`]), the store holds whether it is open, and the host says so
//! here whenever it has looked. Until it has looked for the first time nobody can tell: that is a fault, no refusal.

use doorward_core::{decision::Denial, reason::Reason};
use tokio::sync::watch;

use crate::gate::Gate;

/// Whether credentials of the old system are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// The store was not asked yet.
    #[default]
    Unknown,
    /// They are.
    Open,
    /// No longer.
    Closed,
}

/// The state and whoever waits for it to change.
#[derive(Debug)]
pub(crate) struct WindowState(watch::Sender<Window>);

impl Default for WindowState {
    fn default() -> Self {
        Self(watch::Sender::new(Window::Unknown))
    }
}

impl WindowState {
    /// Completes when the state changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Window> {
        self.0.subscribe()
    }
}

impl Gate {
    /// Says what the store holds. Sockets and streams that were opened with a token of the old system end at once
    /// when this closes the window.
    pub fn use_window(&self, window: Window) {
        self.inner().window.0.send_if_modified(|state| std::mem::replace(state, window) != window);
    }

    /// The window in force: closed where the file does not allow one, whatever the store holds.
    pub fn window(&self) -> Window {
        match self.inner().policy.load().legacy() {
            Some(legacy) if legacy.allow => *self.inner().window.0.borrow(),
            _ => Window::Closed,
        }
    }

    /// Proof that credentials of the old system are accepted now.
    ///
    /// # Errors
    /// `legacy_login_disabled`; `store_unavailable` while nobody can tell.
    pub fn check_window(&self) -> Result<(), Denial> {
        match self.window() {
            Window::Open => Ok(()),
            Window::Closed => Err(Reason::LegacyLoginDisabled.into()),
            Window::Unknown => {
                Err(Denial::from(Reason::StoreUnavailable).with_note("the state of the soak window is not known yet"))
            }
        }
    }
}

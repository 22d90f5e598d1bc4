//! Where hosts have no ssh between them, as pods have none: an agent on each starts for the launcher what ssh would have
//! started, over a connection that is encrypted with a key that both read from a file.
//!
//! ```text
//! launcher ── hold ──────────────────────────────▶ agent      for the whole job: Stop, Farewell, and whether both live
//!    └ mpirun ── reach HOST COMMAND ── run ───────▶ agent ── /bin/sh -c COMMAND
//! ```
//!
//! [`secure`] is the connection, [`message`] what travels on it, [`serve`] the agent, [`children`] what it has started,
//! [`reach`] the program in ssh's place, [`hold`] the launcher's side. Must not: know what the commands are for.

pub mod children;
pub mod hold;
pub mod key;
pub mod message;
pub mod reach;
pub mod secure;
pub mod serve;

use std::time::Duration;

/// Where an agent listens, and where it is looked for, unless it is said otherwise.
pub const PORT: u16 = 7078;
/// How long the two ends may take to know each other.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often an end says that it lives, and after how long without it the other end is lost.
const ALIVE: Duration = Duration::from_secs(5);
const LOST: Duration = Duration::from_secs(30);

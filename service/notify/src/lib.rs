//! Notifications: tells people of a hold, on the channels that the settings name, so that it does not wait unseen.
//!
//! A notification carries no authority: it names a hold and leads to its page, where one signs in. Nothing that an agent wrote is in
//! it, because mail programs and chats make links and markup of what they are given. [`Notifier`] (`notifier.rs`) knows when,
//! `message.rs` what, and `channel.rs` how.

mod channel;
mod message;
mod notifier;
mod quiet;

pub use channel::{Channel, ChannelError, Route};
pub use message::Message;
pub use notifier::{Notifier, NotifierOptions};
pub use quiet::{QuietError, QuietHours};

//! What the server still owes, in order, and where each reply goes.
//!
//! Every message sent to the server pushes what it will cause; every reply pops. Messages of ours are marked, so that their
//! replies never reach the client. Errors skip to the next Sync, as in the server (PostgreSQL 15, section 55.2.3).

use std::{collections::VecDeque, sync::Arc};

use crate::known::Known;

/// Where replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the client.
    Client,
    /// Nowhere: the client got them before, or never asked.
    Swallow,
    /// To us: rows and errors are kept for reading.
    Capture,
}

/// What one message makes the server answer.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// ParseComplete; the statement is known under this name from then on.
    Parse(Option<(String, Arc<Known>)>),
    /// BindComplete; the portal is known under this name from then on.
    Bind(Option<(String, Arc<Known>)>),
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows or a copy, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// Any number of results, then ReadyForQuery. The first `shown` results take the entry's route; what follows is captured.
    Query {
        /// Results that take the route.
        shown: usize,
        /// Results that ended so far.
        seen: usize,
    },
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall,
}

/// One message's expected replies.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) asked: Asked,
    pub(crate) route: Route,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    queue: VecDeque<Expected>,
    /// An error came and no Sync was sent since: the server ignores everything up to one.
    skipping: bool,
}

/// What a reply means for the queue's owner.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    pub(crate) route: Option<Route>,
    /// A statement that is known from now on.
    pub(crate) statement: Option<(String, Arc<Known>)>,
    /// A portal that is known from now on.
    pub(crate) portal: Option<(String, Arc<Known>)>,
}

impl Replies {
    pub(crate) fn push(&mut self, asked: Asked, route: Route) {
        if matches!(asked, Asked::Sync) {
            self.skipping = false;
        }
        if !self.skipping {
            self.queue.push_back(Expected { asked, route });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Where rows go now.
    pub(crate) fn route(&self) -> Route {
        self.queue.front().map_or(Route::Client, Expected::route)
    }

    /// Takes in one message that is not a row. Notices, notifications and parameter changes are not replies and don't come here.
    pub(crate) fn take(&mut self, tag: u8) -> Routed {
        let Some(front) = self.queue.front_mut() else { return Routed { route: Some(Route::Client), ..Routed::default() } };
        let mut routed = Routed { route: Some(front.route()), ..Routed::default() };
        match (&mut front.asked, tag) {
            (Asked::Query { .. } | Asked::FunctionCall | Asked::Sync, b'E') => {}
            (_, b'E') => {
                while self.queue.front().is_some_and(|next| !matches!(next.asked, Asked::Sync)) {
                    self.queue.pop_front();
                }
                self.skipping = self.queue.is_empty();
            }
            (Asked::Query { seen, .. }, b'C' | b'I') => *seen += 1,
            (Asked::Query { .. } | Asked::FunctionCall | Asked::Sync, b'Z')
            | (Asked::Execute, b'C' | b'I' | b's')
            | (Asked::DescribeStatement | Asked::DescribePortal, b'T' | b'n')
            | (Asked::Close, b'3') => {
                self.queue.pop_front();
            }
            (Asked::Parse(known), b'1') => {
                routed.statement = known.take();
                self.queue.pop_front();
            }
            (Asked::Bind(known), b'2') => {
                routed.portal = known.take();
                self.queue.pop_front();
            }
            _ => {}
        }
        routed
    }
}

impl Expected {
    fn route(&self) -> Route {
        match self.asked {
            Asked::Query { shown, seen } if seen >= shown => match self.route {
                Route::Client => Route::Capture,
                other => other,
            },
            _ => self.route,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_skips_to_the_sync() {
        let mut replies = Replies::default();
        replies.push(Asked::Parse(None), Route::Client);
        replies.push(Asked::Bind(None), Route::Client);
        replies.push(Asked::Execute, Route::Capture);
        replies.push(Asked::Sync, Route::Client);
        assert_eq!(replies.take(b'1').route, Some(Route::Client));
        assert_eq!(replies.take(b'E').route, Some(Route::Client));
        assert_eq!(replies.take(b'Z').route, Some(Route::Client));
        assert!(replies.is_empty());
    }

    #[test]
    fn after_an_error_nothing_is_owed_before_a_sync() {
        let mut replies = Replies::default();
        replies.push(Asked::Parse(None), Route::Capture);
        replies.take(b'E');
        replies.push(Asked::Bind(None), Route::Capture);
        assert!(replies.is_empty());
        replies.push(Asked::Sync, Route::Client);
        replies.push(Asked::Parse(None), Route::Capture);
        assert_eq!(replies.take(b'Z').route, Some(Route::Client));
        assert!(!replies.is_empty());
    }

    #[test]
    fn results_past_the_shown_ones_are_captured() {
        let mut replies = Replies::default();
        replies.push(Asked::Query { shown: 1, seen: 0 }, Route::Client);
        assert_eq!(replies.take(b'T').route, Some(Route::Client));
        assert_eq!(replies.take(b'C').route, Some(Route::Client));
        assert_eq!(replies.take(b'T').route, Some(Route::Capture));
        assert_eq!(replies.take(b'E').route, Some(Route::Capture));
    }
}

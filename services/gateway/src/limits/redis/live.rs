//! What this gateway has running, so that it can be handed over to a Redis that has forgotten it, and what has ended
//! without Redis having heard of it yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::RequestId;

use crate::limits::{Ask, Granted, Used};

/// For how long the end of a request with a budget is said while Redis is silent.
const SAID_FOR: Duration = Duration::from_secs(3_600);

/// Bounded by the requests that run here, and those that end while Redis is silent, for as long as that is said.
#[derive(Default)]
pub struct Live(Mutex<HashMap<RequestId, One>>);

struct One {
    ask: Ask,
    /// `None` until it is known to be charged.
    begun: Option<Granted>,
    total: u32,
    /// The generation that it is charged in.
    token: Arc<str>,
    /// It has ended, and Redis has to be told.
    used: Option<Used>,
    /// Looks of the watch since it has ended.
    looks: u32,
    /// Redis was asked for it and has not answered: it may have charged it or not.
    in_doubt: bool,
    /// Redis is asked to adopt it, and may have done so or not.
    adopting: bool,
}

impl Live {
    /// Redis is asked for it.
    pub fn asks(&self, ask: &Ask) {
        self.begins(ask);
        self.with(ask, |one| one.in_doubt = true);
    }

    pub fn begins(&self, ask: &Ask) {
        let one = || One {
            ask: ask.clone(),
            begun: None,
            total: 0,
            token: "".into(),
            used: None,
            looks: 0,
            in_doubt: false,
            adopting: false,
        };
        self.on(|all| all.entry(ask.id).or_insert_with(one).used = None);
    }

    /// Redis has charged it.
    pub fn answered(&self, ask: &Ask) {
        self.with(ask, |one| one.in_doubt = false);
    }

    pub fn granted(&self, ask: &Ask, granted: Granted, token: &Arc<str>) {
        self.with(ask, |one| {
            one.token = Arc::clone(token);
            one.begun = one.begun.or(Some(granted));
            one.total = one.total.max(granted.output);
        });
    }

    pub fn extended(&self, ask: &Ask, total: u32) {
        self.with(ask, |one| one.total = one.total.max(total));
    }

    pub fn ends(&self, ask: &Ask, used: Used) {
        self.with(ask, |one| one.used = Some(used));
    }

    /// Redis knows that it has ended, or never knew it.
    pub fn ended(&self, ask: &Ask) {
        self.on(|all| all.remove(&ask.id));
    }

    /// It was, or is, counted elsewhere: should Redis have charged it when it did not answer, that is taken back.
    pub fn ended_elsewhere(&self, ask: &Ask) {
        self.on(|all| match all.get_mut(&ask.id) {
            Some(one) if one.in_doubt => {
                (one.begun, one.used) = (None, Some(Used::default()));
            }
            _ => {
                all.remove(&ask.id);
            }
        });
    }

    /// It was drawn, and has ended. What Redis may have charged for it all the same is taken back, unless that is because it
    /// was handed over at this moment: then Redis is told its end.
    pub fn drawn_ended(&self, ask: &Ask, used: Used) {
        self.on(|all| match all.get_mut(&ask.id) {
            Some(one) if one.adopting => one.used = Some(used),
            Some(one) if one.in_doubt => (one.begun, one.used) = (None, Some(Used::default())),
            _ => {
                all.remove(&ask.id);
            }
        });
    }

    /// The generation that its money is charged in, if any is.
    pub fn charged_in(&self, ask: &Ask) -> Option<Arc<str>> {
        let has_money = |one: &&One| one.begun.is_some() && one.ask.has_budget();
        self.on(|all| all.get(&ask.id).filter(has_money).map(|one| Arc::clone(&one.token)))
    }

    /// What it began with and what it is granted now, if it runs here and is charged in another generation than this one.
    /// From now on Redis is told its end until it knows it.
    pub fn hands_over(&self, ask: &Ask, token: &str) -> Option<(Granted, u32)> {
        self.on(|all| {
            let one = all.get_mut(&ask.id).filter(|one| one.is_lost(token))?;
            one.adopting = true;
            Some((one.begun?, one.total))
        })
    }

    pub fn adopted(&self, ask: &Ask, token: &Arc<str>) {
        self.with(ask, |one| {
            one.token = Arc::clone(token);
            one.in_doubt = false;
            one.adopting &= one.used.is_some();
        });
    }

    /// Everything that runs here and is charged in another generation than this one.
    pub fn all_lost(&self, token: &str) -> Vec<Ask> {
        self.on(|all| all.values().filter(|one| one.is_lost(token)).map(|one| one.ask.clone()).collect())
    }

    /// Redis was told that it has ended. If it did not know it, what it was asked before and has not answered may still be
    /// on its way, on another connection: that is told again.
    pub fn told(&self, ask: &Ask, known: bool) {
        self.on(|all| {
            if known || all.get(&ask.id).is_some_and(|one| !one.in_doubt && !one.adopting) {
                all.remove(&ask.id);
            }
        });
    }

    /// What has ended and has to be said again; what has been said for long enough is left to its lease.
    /// `interval`: from one look to the next.
    pub fn unsaid(&self, interval: Duration) -> Vec<(Ask, Used)> {
        self.on(|all| {
            all.retain(|_, one| {
                one.looks += u32::from(one.used.is_some());
                interval * one.looks.saturating_sub(1) <= one.said_for()
            });
            // The first look may come while its own call is still under way.
            let unsaid = all.values().filter(|one| one.looks > 1);
            unsaid.filter_map(|one| Some((one.ask.clone(), one.used?))).collect()
        })
    }

    fn with(&self, ask: &Ask, act: impl FnOnce(&mut One)) {
        self.on(|all| all.get_mut(&ask.id).map(act));
    }

    fn on<T>(&self, act: impl FnOnce(&mut HashMap<RequestId, One>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl One {
    /// For how long its end is said again. Money is settled whenever Redis is back.
    fn said_for(&self) -> Duration {
        let charged = !self.in_doubt && !self.adopting;
        if self.ask.has_budget() && charged { self.ask.lease.max(SAID_FOR) } else { self.ask.lease }
    }

    fn is_lost(&self, token: &str) -> bool {
        self.begun.is_some() && self.used.is_none() && *self.token != *token
    }
}

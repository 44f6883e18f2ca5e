//! Which version of an alias answers a request. No IO and no clock of its own.

use domain::ApiKeyId;
use sha2::{Digest as _, Sha256};
use store::{Pinned, Route, RoutePin, RouteVersion};
use time::OffsetDateTime;
use uuid::Uuid;

/// Draws are below this: hundredths of a percent.
pub const WHOLE: u16 = domain::BasisPoints::WHOLE.get();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub version: RouteVersion,
    pub shadow: Option<RouteVersion>,
}

/// A pin decides before the canary, and of pins the one that says most about the request. Without a routing key the dice
/// are cast for each request: `draw` gives a number below [`WHOLE`].
pub fn choose(
    route: &Route,
    key: ApiKeyId,
    routing_key: Option<&str>,
    now: OffsetDateTime,
    mut draw: impl FnMut() -> u16,
) -> Choice {
    let canary = route.canary.filter(|canary| {
        let place = routing_key.map_or_else(&mut draw, |routing_key| bucket(route.salt, routing_key));
        place < canary.share.get()
    });
    let version = match pinned(route, key, routing_key, now) {
        Some(pin) => pin.version,
        None => canary.map_or(route.stable, |canary| canary.version),
    };
    let shadow = route.shadow.filter(|shadow| shadow.version != version && draw() < shadow.share.get());
    Choice { version, shadow: shadow.map(|shadow| shadow.version) }
}

fn pinned<'a>(route: &'a Route, key: ApiKeyId, routing_key: Option<&str>, now: OffsetDateTime) -> Option<&'a RoutePin> {
    let holds = |pin: &&RoutePin| pin.expires_at > now;
    let rank = |pin: &&RoutePin| match &pin.who {
        Pinned::RoutingKey(pinned) => (routing_key == Some(pinned)).then_some(3),
        Pinned::ApiKey(_) => (pin.api_key == Some(key)).then_some(2),
        Pinned::Tenant => Some(1),
    };
    route.pins.iter().filter(holds).filter(|pin| rank(pin).is_some()).max_by_key(rank)
}

/// Where a key falls, for the life of the alias: below the weight is the canary's side, so a higher weight takes keys over
/// to it and gives none back.
fn bucket(salt: Uuid, routing_key: &str) -> u16 {
    let hash = Sha256::new().chain_update(salt.as_bytes()).chain_update(routing_key.as_bytes()).finalize();
    let number = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    u16::try_from(number % u64::from(WHOLE)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use domain::{BasisPoints, Digest};
    use store::RoutePart;

    use super::*;

    fn version(byte: u8) -> RouteVersion {
        RouteVersion { digest: Digest::new([byte; 32]), base_digest: Digest::new([0; 32]) }
    }

    fn part(byte: u8, share: u32) -> RoutePart {
        RoutePart { version: version(byte), share: BasisPoints::new(share).expect("in range") }
    }

    fn route(canary: u32) -> Route {
        Route {
            stable: version(1),
            canary: Some(part(2, canary)),
            shadow: None,
            pins: Vec::new(),
            salt: Uuid::from_u128(0x5a17),
            display_name: String::new(),
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn key() -> ApiKeyId {
        ApiKeyId::new(Uuid::from_u128(7))
    }

    fn of_key(route: &Route, routing_key: &str) -> RouteVersion {
        let no_dice = || panic!("a key needs no dice");
        choose(route, key(), Some(routing_key), OffsetDateTime::UNIX_EPOCH, no_dice).version
    }

    #[test]
    fn a_higher_weight_takes_keys_to_the_canary_and_gives_none_back() {
        let keys: Vec<_> = (0..20_000).map(|number| format!("user-{number}")).collect();
        let mut on_canary = vec![false; keys.len()];
        for weight in [0, 100, 500, 2_500, 5_000, 10_000] {
            let route = route(weight);
            let mut share = 0;
            for (key, before) in keys.iter().zip(&mut on_canary) {
                let now = of_key(&route, key) == version(2);
                assert!(now || !*before, "{key} went back at {weight}");
                *before = now;
                share += usize::from(now);
            }
            // Four standard deviations of a binomial distribution.
            let (n, p) = (keys.len() as f64, f64::from(weight) / 10_000.0);
            let bound = 4.0 * (n * p * (1.0 - p)).sqrt();
            assert!((share as f64 - n * p).abs() <= bound, "{share} of {n} at {weight}");
        }
    }

    #[test]
    fn two_aliases_do_not_have_the_same_callers_on_their_canaries() {
        let (one, two) = (route(5_000), Route { salt: Uuid::from_u128(0xbad), ..route(5_000) });
        let same = (0..1_000).filter(|n| of_key(&one, &n.to_string()) == of_key(&two, &n.to_string())).count();
        assert!((400..600).contains(&same), "{same} of 1,000");
    }

    #[test]
    fn without_a_key_the_dice_decide() {
        let route = route(2_500);
        let draw = |place| choose(&route, key(), None, OffsetDateTime::UNIX_EPOCH, || place).version;
        assert_eq!((draw(2_499), draw(2_500)), (version(2), version(1)));
    }

    #[test]
    fn a_pin_holds_until_it_is_over_and_the_one_that_says_most_decides() {
        let hour = OffsetDateTime::UNIX_EPOCH + time::Duration::HOUR;
        let pin = |who, byte| RoutePin { who, api_key: Some(key()), version: version(byte), expires_at: hour };
        let pins = vec![
            pin(Pinned::RoutingKey("ann".into()), 5),
            pin(Pinned::ApiKey("abc".into()), 4),
            pin(Pinned::Tenant, 3),
        ];
        let route = Route { pins, ..route(10_000) };
        let ask = |key, routing_key, now| choose(&route, key, routing_key, now, || 0).version;
        let (start, stranger) = (OffsetDateTime::UNIX_EPOCH, ApiKeyId::new(Uuid::from_u128(8)));
        assert_eq!(ask(key(), Some("ann"), start), version(5));
        assert_eq!(ask(key(), Some("bob"), start), version(4));
        assert_eq!(ask(stranger, None, start), version(3));
        assert_eq!(ask(key(), Some("ann"), hour), version(2), "over");
    }

    #[test]
    fn a_shadow_is_drawn_apart_and_never_what_answers() {
        let shadowed = Route { shadow: Some(part(3, 1_000)), ..route(0) };
        let draw = |place| choose(&shadowed, key(), Some("ann"), OffsetDateTime::UNIX_EPOCH, || place).shadow;
        assert_eq!((draw(999), draw(1_000)), (Some(version(3)), None));
        let itself = Route { shadow: Some(part(2, 10_000)), ..route(10_000) };
        assert_eq!(choose(&itself, key(), Some("ann"), OffsetDateTime::UNIX_EPOCH, || 0).shadow, None);
    }
}

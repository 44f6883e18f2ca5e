//! What Redis keeps of reservations: none is left when all requests have ended and every lease has passed.

use std::collections::HashSet;

use redis::Client;

use super::cluster::REDIS_PREFIX;

/// Leases of requests that have not passed, and reservations without one, at this moment. A slice, whose seats are numbered,
/// is no request: it is lent to a gateway, which may keep it for the next ones. What an expired lease has left is cleared
/// away by whatever runs next, so that it counts for nothing already.
///
/// # Errors
/// Redis does not answer.
pub async fn reservations_left(url: &str) -> Result<u64, redis::RedisError> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    let keys: Vec<String> = redis::cmd("keys").arg(format!("{REDIS_PREFIX}:*")).query_async(&mut connection).await?;
    let (seconds, micros): (u64, u64) = redis::cmd("time").query_async(&mut connection).await?;
    let now = seconds * 1000 + micros / 1000;
    let (mut live, mut leased, mut reserved) = (0, HashSet::new(), HashSet::new());
    for key in keys {
        if key.ends_with(":leases") || key.ends_with(":seatless") {
            let members: Vec<(String, u64)> =
                redis::cmd("zrange").arg(&key).arg(0).arg(-1).arg("withscores").query_async(&mut connection).await?;
            for (member, until) in members {
                let (id, is_slice) = member.split_once(':').map_or((member.as_str(), false), |(id, _)| (id, true));
                live += u64::from(!is_slice && key.ends_with(":leases") && until > now);
                leased.insert(id.to_owned());
            }
        } else if key.ends_with(":reservations") {
            reserved.extend(redis::cmd("hkeys").arg(&key).query_async::<Vec<String>>(&mut connection).await?);
        }
    }
    Ok(live + reserved.difference(&leased).count() as u64)
}

//! What Redis keeps of reservations: none is left when all requests have ended and every lease has passed.

use redis::Client;

use super::cluster::REDIS_PREFIX;

/// Leases that have not passed, and reservations without one, at this moment.
///
/// # Errors
/// Redis does not answer.
pub async fn reservations_left(url: &str) -> Result<u64, redis::RedisError> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    let keys: Vec<String> = redis::cmd("keys").arg(format!("{REDIS_PREFIX}:*")).query_async(&mut connection).await?;
    let (seconds, micros): (u64, u64) = redis::cmd("time").query_async(&mut connection).await?;
    let now = seconds * 1000 + micros / 1000;
    let mut left = 0;
    for key in keys {
        if key.ends_with(":leases") {
            let mut live = redis::cmd("zcount");
            live.arg(&key).arg(format!("({now}")).arg("+inf");
            left += live.query_async::<u64>(&mut connection).await?;
        } else if key.ends_with(":reservations") {
            left += redis::cmd("hlen").arg(&key).query_async::<u64>(&mut connection).await?;
        }
    }
    Ok(left)
}

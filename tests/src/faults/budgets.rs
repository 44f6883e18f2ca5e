//! Whether budgets held: what was charged against them, and what Redis counts of them beside the ledger.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{books, cluster::Cluster, tenants::Tenant};

/// What is lent at most of a budget at the same time: a part of what is left, to each gateway.
const LENT_PARTS: u64 = 4;

/// Micro-units beyond a budget, of all tenants. One whose plan lives on what its gateways have borrowed may be beyond it by
/// so much where Redis forgets.
pub async fn money_over(cluster: &Cluster, tenants: &[Tenant], budgets: &[Option<u64>]) -> u64 {
    let mut over = 0;
    for (tenant, budget) in tenants.iter().zip(budgets) {
        let (Some(budget), Some(money)) = (budget, tenant.terms.money) else { continue };
        let lent = cluster.gateways.len() as u64 * money.div_ceil(LENT_PARTS);
        let allowed = if tenant.terms.outage == "leased" { budget + lent } else { *budget };
        let spent = books::posted(&cluster.database.owner_url(), tenant.slug).await.expect("the database answers");
        over += spent.saturating_sub(allowed);
    }
    over
}

/// Waits until `banyan ledger reconcile` shows the same budgets in Redis and in the ledger; says what it shows at last.
pub async fn differing(cluster: &Cluster, patience: Duration) -> Option<String> {
    let end = Instant::now() + patience;
    loop {
        let differs = tokio::task::block_in_place(|| compare(cluster));
        if differs.is_none() || Instant::now() > end {
            return differs;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn compare(cluster: &Cluster) -> Option<String> {
    let said = match cluster.output(&["ledger", "reconcile", "--json"]) {
        Ok(output) => output,
        Err(error) => return Some(error.to_string()),
    };
    let told: Value = match serde_json::from_slice(&said.stdout) {
        Ok(told) => told,
        Err(_) => return Some(String::from_utf8_lossy(&said.stderr).into_owned()),
    };
    let checks = told["checks"].as_array()?;
    let of_budgets =
        checks.iter().filter(|check| check["name"].as_str().is_some_and(|name| name.starts_with("budget")));
    let differing = of_budgets.clone().find(|check| check["difference"] != 0);
    if of_budgets.count() == 0 {
        return Some("no budget is counted".to_owned());
    }
    differing.map(Value::to_string)
}

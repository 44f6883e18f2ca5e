//! Price lists.

use domain::{ModelName, Price, TenantId};
use store::{ListedPrice, NewPrice, Page, PricedModel, Store, StoreError};
use time::{Duration, OffsetDateTime};

use super::tenant;
use crate::assert_refused;

pub async fn a_tenants_own_price_comes_before_the_platforms(store: &Store) {
    let (own, slug) = tenant(store).await;
    let (other, _) = tenant(store).await;
    let claims = format!("{slug}/claims");
    let beside = other.id();
    let of = |tenant: TenantId, model: &str| {
        let model: ModelName = model.parse().expect("a model name");
        async move {
            let lists = store.platform().price_lists(&[beside, tenant]).await.expect("read");
            lists[1].of(&model, OffsetDateTime::now_utc())
        }
    };
    // The platform's list is everybody's: whatever stands there already is behind what is set here.
    set(store, None, PricedModel::Every, 1).await;
    set(store, None, PricedModel::One("base".to_owned()), 2).await;
    assert_eq!((of(own.id(), "base").await, of(own.id(), &claims).await), (price(2), price(1)));
    set(store, Some(own.id()), PricedModel::Every, 3).await;
    assert_eq!((of(own.id(), "base").await, of(own.id(), &claims).await), (price(3), price(3)));
    set(store, Some(own.id()), PricedModel::One(claims.clone()), 4).await;
    assert_eq!((of(own.id(), "base").await, of(own.id(), &claims).await), (price(3), price(4)));
    assert_eq!(of(own.id(), &format!("{claims}@canary")).await, price(4), "whatever the version");
    assert_eq!(of(other.id(), "base").await, price(2), "nobody else's");
}

pub async fn a_price_holds_from_its_time_on_and_its_past_stays(store: &Store) {
    let (own, _) = tenant(store).await;
    let base = PricedModel::One("base".to_owned());
    let first = set(store, Some(own.id()), base.clone(), 1).await;
    let second = set(store, Some(own.id()), base.clone(), 2).await;
    let later = OffsetDateTime::now_utc() + Duration::days(2);
    let new = NewPrice { tenant: Some(own.id()), model: base.clone(), price: price(3), effective_at: Some(later) };
    let third = store.platform().set_price(&new).await.expect("set");
    let list = store.platform().price_lists(&[own.id()]).await.expect("read").remove(0);
    let model = "base".parse().expect("a model name");
    assert_eq!(list.of(&model, OffsetDateTime::now_utc()), price(2));
    assert_eq!(list.of(&model, later), price(3), "what will hold is known ahead");
    let page = own.list_prices(&Page::first(2)).await.expect("list");
    let rest = own.list_prices(&Page { size: 2, token: page.next_page_token }).await.expect("list");
    let listed: Vec<_> = page.items.into_iter().chain(rest.items).collect();
    let seen: Vec<_> = listed.iter().map(|row| (row.id, row.in_effect)).collect();
    assert_eq!(seen, [(third.id, false), (second.id, true), (first.id, false)]);
    let past = NewPrice { effective_at: Some(first.created_at - Duration::seconds(1)), ..new };
    let refused = store.platform().set_price(&past).await;
    assert_refused!(refused, StoreError::InvalidValue { field: "effective_time", .. });
}

async fn set(store: &Store, tenant: Option<TenantId>, model: PricedModel, input: u64) -> ListedPrice {
    let new = NewPrice { tenant, model, price: price(input), effective_at: None };
    store.platform().set_price(&new).await.expect("set a price")
}

fn price(input: u64) -> Price {
    Price { input, cached_input: input, output: input }
}

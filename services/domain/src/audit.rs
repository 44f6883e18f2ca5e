//! The audit trail as a hash chain, and the check of one: whoever has the links can make it, wherever they lie.

use std::fmt;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Digest, TenantId};

/// Whose trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditChain {
    Platform,
    Tenant(TenantId),
}

/// One entry, and what ties it to the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLink {
    pub chain: AuditChain,
    /// From 1, without gaps.
    pub position: u64,
    /// A JSON object, to the byte as it was hashed.
    pub content: String,
    /// Of the first: of the chain's id.
    pub previous_hash: Digest,
    /// Of the previous hash and the content.
    pub hash: Digest,
}

/// The newest link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    pub position: u64,
    pub hash: Digest,
}

/// Goes along a chain, from its first link to its head.
pub struct ChainCheck {
    last: ChainHead,
}

/// Where a chain is broken, and how. What comes after proves nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {position} {how}")]
pub struct BrokenChain {
    pub position: u64,
    pub how: Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Another entry stands in its place.
    Missing,
    /// Its content is not what was hashed.
    Changed,
    /// It does not follow from the entry before.
    Detached,
    /// The head knows an entry here, and there is none.
    CutOff,
    /// The head is another one than the chain's end.
    NotTheHead,
}

impl AuditChain {
    /// As the links' column has it.
    pub const fn id(self) -> Uuid {
        match self {
            Self::Platform => Uuid::nil(),
            Self::Tenant(tenant) => tenant.uuid(),
        }
    }
}

impl ChainCheck {
    pub fn new(chain: AuditChain) -> Self {
        let hash = Digest::new(Sha256::digest(chain.id().to_string().as_bytes()).into());
        Self { last: ChainHead { position: 0, hash } }
    }

    /// The links in order.
    pub fn follow(&mut self, link: &AuditLink) -> Result<(), BrokenChain> {
        let position = self.last.position + 1;
        let broken = |how| Err(BrokenChain { position, how });
        if link.position != position {
            return broken(Broken::Missing);
        }
        if link.previous_hash != self.last.hash {
            return broken(Broken::Detached);
        }
        let hash = Sha256::new().chain_update(link.previous_hash.as_bytes()).chain_update(&link.content).finalize();
        if link.hash != Digest::new(hash.into()) {
            return broken(Broken::Changed);
        }
        self.last = ChainHead { position, hash: link.hash };
        Ok(())
    }

    /// The last link that was followed; position 0 before the first.
    pub const fn last(&self) -> ChainHead {
        self.last
    }

    /// Whether the chain ends where `head`, kept apart from it, says.
    pub fn end(self, head: Option<ChainHead>) -> Result<ChainHead, BrokenChain> {
        let position = head.map_or(0, |head| head.position);
        if position > self.last.position {
            return Err(BrokenChain { position: self.last.position + 1, how: Broken::CutOff });
        }
        match head {
            Some(head) if head != self.last => {
                Err(BrokenChain { position: self.last.position, how: Broken::NotTheHead })
            }
            None if self.last.position > 0 => Err(BrokenChain { position: 1, how: Broken::NotTheHead }),
            _ => Ok(self.last),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Changed => "was changed",
            Self::Detached => "does not follow from the one before",
            Self::CutOff => "and what came after it were cut off",
            Self::NotTheHead => "is not the one that the head names",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: AuditChain = AuditChain::Platform;

    fn links(contents: &[&str]) -> Vec<AuditLink> {
        let mut last = ChainCheck::new(CHAIN).last();
        let mut links = Vec::new();
        for content in contents {
            let hash = Sha256::new().chain_update(last.hash.as_bytes()).chain_update(content).finalize();
            let hash = Digest::new(hash.into());
            let (position, previous_hash) = (last.position + 1, last.hash);
            links.push(AuditLink { chain: CHAIN, position, content: (*content).to_owned(), previous_hash, hash });
            last = ChainHead { position, hash };
        }
        links
    }

    fn check(links: &[AuditLink], head: Option<ChainHead>) -> Result<u64, (u64, Broken)> {
        let mut check = ChainCheck::new(CHAIN);
        let followed = links.iter().try_for_each(|link| check.follow(link));
        let ended = followed.and_then(|()| check.end(head));
        ended.map(|head| head.position).map_err(|broken| (broken.position, broken.how))
    }

    #[test]
    fn every_edit_of_a_chain_is_found_at_its_place() {
        let good = links(&["a", "b", "c", "d"]);
        let head = good.last().map(|last| ChainHead { position: last.position, hash: last.hash });
        assert_eq!(check(&good, head), Ok(4));
        assert_eq!(check(&[], None), Ok(0));

        let edited = |edit: fn(&mut Vec<AuditLink>)| {
            let mut links = good.clone();
            edit(&mut links);
            check(&links, head)
        };
        assert_eq!(edited(|links| links[1].content = "B".to_owned()), Err((2, Broken::Changed)));
        assert_eq!(edited(|links| links[1].hash = Digest::new([1; 32])), Err((2, Broken::Changed)));
        assert_eq!(edited(|links| drop(links.remove(2))), Err((3, Broken::Missing)));
        assert_eq!(edited(|links| links.swap(1, 2)), Err((2, Broken::Missing)));
        assert_eq!(edited(|links| drop(links.pop())), Err((4, Broken::CutOff)));
        assert_eq!(edited(Vec::clear), Err((1, Broken::CutOff)));
        // Made to look in order: positions renumbered after a deletion, and two contents exchanged.
        let renumbered = edited(|links| {
            links.remove(1);
            links.iter_mut().zip(1..).for_each(|(link, position)| link.position = position);
        });
        assert_eq!(renumbered, Err((2, Broken::Detached)));
        assert_eq!(edited(|links| links.insert(0, links[0].clone())), Err((2, Broken::Missing)));
        // Hashed anew from the edit on: only the head that was kept apart tells.
        let forged = links(&["a", "X", "c", "d"]);
        assert_eq!(check(&forged, head), Err((4, Broken::NotTheHead)));
        assert_eq!(check(&good, None), Err((1, Broken::NotTheHead)));
        assert_eq!(check(&good[..3], Some(ChainHead { position: 3, hash: good[2].hash })), Ok(3));
    }

    #[test]
    fn a_chain_is_bound_to_its_owner() {
        let mut other = ChainCheck::new(AuditChain::Tenant(TenantId::new(Uuid::from_u128(1))));
        let broken = other.follow(&links(&["a"])[0]).expect_err("another chain");
        assert_eq!((broken.position, broken.how), (1, Broken::Detached));
    }
}

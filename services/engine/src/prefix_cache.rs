//! Which KV blocks hold which beginning of which text. The key is exact, not a hash: a tree whose edges are the tokens of
//! one block, one tree for each [`Scope`], so two different texts, adapters or tenants can never meet.

use std::collections::{BTreeMap, HashMap};

use domain::{Digest, TenantId};

use crate::model::BlockId;

/// What KV depends on besides the tokens, and who may share it. (An adapter's scale is part of its digest.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The share group: nothing is shared between two of them.
    pub group: TenantId,
    pub base: Digest,
    pub adapter: Option<Digest>,
    /// [`crate::model::Model::rope_key`].
    pub rope_key: usize,
}

/// The tree. A node is one block full of tokens; a block that has a node is never written again.
#[derive(Default)]
pub struct PrefixCache {
    children: HashMap<Edge, BlockId>,
    nodes: HashMap<BlockId, Node>,
    /// Nodes that no sequence holds, the one not used for longest first.
    idle: BTreeMap<u64, BlockId>,
    clock: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Edge {
    from: Parent,
    tokens: Box<[u32]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Parent {
    Root(Scope),
    /// A number that is never used again, so that an edge cannot lead on from a block's former content.
    Node(u64),
}

struct Node {
    number: u64,
    edge: Edge,
    idle_since: Option<u64>,
}

impl PrefixCache {
    pub fn new() -> Self {
        Self::default()
    }

    /// Nodes that no sequence holds.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The blocks of the longest known beginning of `tokens` (a whole number of blocks). The caller holds them from now.
    pub fn find(&mut self, scope: &Scope, tokens: &[u32]) -> Vec<BlockId> {
        let mut found = Vec::new();
        let mut from = Parent::Root(*scope);
        for tokens in tokens.chunks_exact(crate::model::BLOCK_TOKENS) {
            let Some(block) = self.children.get(&Edge { from, tokens: tokens.into() }).copied() else { break };
            self.hold(block);
            from = Parent::Node(self.nodes[&block].number);
            found.push(block);
        }
        found
    }

    /// Makes `block`, held by the caller, known as `tokens` behind `parent`; returns the block that is known so, held by
    /// the caller: an older one if there is one.
    pub fn insert(&mut self, scope: &Scope, parent: Option<BlockId>, tokens: &[u32], block: BlockId) -> BlockId {
        let from = match parent.map(|parent| self.nodes.get(&parent)) {
            None => Parent::Root(*scope),
            Some(Some(node)) => Parent::Node(node.number),
            // Its beginning is unknown, so it cannot be found: leave it out.
            Some(None) => return block,
        };
        let edge = Edge { from, tokens: tokens.into() };
        if let Some(known) = self.children.get(&edge).copied() {
            self.hold(known);
            return known;
        }
        let number = self.tick();
        self.children.insert(edge.clone(), block);
        self.nodes.insert(block, Node { number, edge, idle_since: None });
        block
    }

    /// Nobody holds `block` any more. True if it is kept here, false if it has no node.
    pub fn rest(&mut self, block: BlockId) -> bool {
        let now = self.tick();
        let Some(node) = self.nodes.get_mut(&block) else { return false };
        node.idle_since = Some(now);
        self.idle.insert(now, block);
        true
    }

    /// Forgets the idle node that was not used for longest and gives its block away. A sequence holds all blocks before
    /// any that it holds and gives them back last first, so this node has no children.
    pub fn reclaim(&mut self) -> Option<BlockId> {
        let (_, block) = self.idle.pop_first()?;
        let node = self.nodes.remove(&block)?;
        self.children.remove(&node.edge);
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        if let Some(since) = self.nodes.get_mut(&block).and_then(|node| node.idle_since.take()) {
            self.idle.remove(&since);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    #[cfg(test)]
    pub fn check(&self, holders: &[u32]) {
        assert_eq!(self.children.len(), self.nodes.len());
        for (block, node) in &self.nodes {
            assert_eq!(self.children[&node.edge], *block);
            assert_eq!(node.idle_since.is_some(), holders[block.0 as usize] == 0);
            if let Parent::Node(number) = node.edge.from {
                let parent = self.nodes.values().find(|parent| parent.number == number).expect("no orphans");
                let younger = parent.idle_since.is_none_or(|at| node.idle_since.is_some_and(|own| own < at));
                assert!(younger, "a child is reclaimed before its parent");
            }
        }
        assert!(self.idle.iter().all(|(since, block)| self.nodes[block].idle_since == Some(*since)));
    }
}

#[cfg(test)]
mod tests {
    use domain::{Digest, TenantId};
    use proptest::prelude::*;

    use super::*;
    use crate::blocks::{BlockPool, blocks_for};
    use crate::model::BLOCK_TOKENS;

    fn scope(group: u128, adapter: Option<u8>) -> Scope {
        Scope {
            group: TenantId::new(uuid::Uuid::from_u128(group)),
            base: Digest::new([0; 32]),
            adapter: adapter.map(|byte| Digest::new([byte; 32])),
            rope_key: 0,
        }
    }

    /// Computes `tokens` as a sequence would: what is cached is taken, the rest is computed and published.
    fn compute(pool: &mut BlockPool, scope: &Scope, tokens: &[u32]) -> Option<(Vec<BlockId>, usize)> {
        let mut blocks = pool.take_prefix(scope, tokens);
        let hits = blocks.len();
        while blocks.len() < blocks_for(tokens.len()) {
            let Some(block) = pool.allocate() else {
                pool.release(&blocks);
                return None;
            };
            blocks.push(block);
        }
        for (index, tokens) in tokens.chunks_exact(BLOCK_TOKENS).enumerate().skip(hits) {
            pool.publish(scope, &mut blocks, index, tokens);
        }
        Some((blocks, hits))
    }

    fn text(length: u32) -> Vec<u32> {
        (0..length).map(|i| i % 7).collect()
    }

    #[test]
    fn the_same_text_is_found_again_and_one_token_is_left_to_compute() {
        let mut pool = BlockPool::new(8, Some(PrefixCache::new()));
        let (blocks, hits) = compute(&mut pool, &scope(1, None), &text(48)).unwrap();
        assert_eq!(hits, 0);
        pool.release(&blocks);
        assert_eq!((pool.free(), pool.idle()), (5, 3));
        assert_eq!(pool.take_prefix(&scope(1, None), &text(48)), blocks[..2]);
        assert_eq!(pool.take_prefix(&scope(1, None), &text(49)), blocks[..3]);
        pool.check(&[&blocks[..2], &blocks[..3]]);
    }

    #[test]
    fn another_tenant_adapter_base_or_beginning_finds_nothing() {
        let mut pool = BlockPool::new(8, Some(PrefixCache::new()));
        let (blocks, _) = compute(&mut pool, &scope(1, Some(1)), &text(40)).unwrap();
        let other_base = Scope { base: Digest::new([9; 32]), ..scope(1, Some(1)) };
        let other_rope = Scope { rope_key: 5, ..scope(1, Some(1)) };
        for other in [scope(2, Some(1)), scope(1, Some(2)), scope(1, None), other_base, other_rope] {
            assert!(pool.take_prefix(&other, &text(40)).is_empty(), "{other:?}");
        }
        let mut changed = text(40);
        changed[0] += 1;
        assert!(pool.take_prefix(&scope(1, Some(1)), &changed).is_empty());
        pool.check(&[&blocks]);
    }

    #[test]
    fn two_sequences_with_the_same_text_end_up_on_the_same_blocks() {
        let mut pool = BlockPool::new(8, Some(PrefixCache::new()));
        let tokens = text(32);
        let mut both: Vec<Vec<BlockId>> = (0..2).map(|_| (0..2).map(|_| pool.allocate().unwrap()).collect()).collect();
        for index in 0..2 {
            for blocks in &mut both {
                let span = index * BLOCK_TOKENS..(index + 1) * BLOCK_TOKENS;
                pool.publish(&scope(1, None), blocks, index, &tokens[span]);
            }
        }
        assert_eq!(both[0], both[1]);
        assert_eq!(pool.free(), 6);
        pool.check(&[&both[0], &both[1]]);
    }

    #[test]
    fn without_a_cache_every_released_block_is_free() {
        let mut pool = BlockPool::new(4, None);
        let (blocks, _) = compute(&mut pool, &scope(1, None), &text(64)).unwrap();
        assert_eq!(pool.allocate(), None);
        pool.release(&blocks);
        assert_eq!((pool.free(), pool.idle()), (4, 0));
    }

    proptest! {
        #[test]
        fn no_block_is_ever_lost_shared_wrongly_or_reclaimed_while_held(
            steps in prop::collection::vec((0usize..3, 0u32..4, 1u32..90, any::<bool>()), 1..80)
        ) {
            let mut pool = BlockPool::new(12, Some(PrefixCache::new()));
            // What is written in each block, as (scope, all tokens up to its end).
            let mut content: HashMap<BlockId, (usize, Vec<u32>)> = HashMap::new();
            let mut held: Vec<Vec<BlockId>> = Vec::new();
            for (group, salt, length, keep) in steps {
                let scope = scope(group as u128, None);
                let tokens: Vec<u32> = (0..length).map(|i| if i < 20 { 0 } else { salt }).collect();
                if let Some((blocks, hits)) = compute(&mut pool, &scope, &tokens) {
                    for (index, block) in blocks.iter().enumerate() {
                        let end = tokens.len().min((index + 1) * BLOCK_TOKENS);
                        let own = (group, tokens[..end].to_vec());
                        if index < hits {
                            prop_assert_eq!(&content[block], &own);
                        }
                        content.insert(*block, own);
                    }
                    if keep { held.push(blocks) } else { pool.release(&blocks) }
                } else if let Some(oldest) = (!held.is_empty()).then(|| held.remove(0)) {
                    pool.release(&oldest);
                }
                pool.check(&held.iter().map(Vec::as_slice).collect::<Vec<_>>());
            }
        }
    }
}

//! The KV blocks of a worker: which are free, which are held by sequences, which the prefix cache keeps for reuse.
//! It moves no memory; [`crate::model::KvCache`] owns that.

use crate::model::{BLOCK_TOKENS, BlockId};
use crate::prefix_cache::{PrefixCache, Scope};

/// Blocks needed for this many tokens.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}

/// Allocator of blocks with reference counts. Every block is in exactly one state: free; held by one or more sequences
/// (and perhaps known to the prefix cache); or idle: held by none, kept by the prefix cache until the room is needed.
pub struct BlockPool {
    holders: Vec<u32>,
    free: Vec<BlockId>,
    cache: Option<PrefixCache>,
}

impl BlockPool {
    pub fn new(blocks: usize, cache: Option<PrefixCache>) -> Self {
        let ids = 0..u32::try_from(blocks).unwrap_or(u32::MAX);
        Self { holders: vec![0; ids.len()], free: ids.rev().map(BlockId).collect(), cache }
    }

    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that hold nothing.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that only the prefix cache holds.
    pub fn idle(&self) -> usize {
        self.cache.as_ref().map_or(0, PrefixCache::idle)
    }

    /// Blocks that [`BlockPool::allocate`] can give.
    pub fn available(&self) -> usize {
        self.free() + self.idle()
    }

    /// A block for one holder: a free one, or else the idle one that was not used for longest.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop().or_else(|| self.cache.as_mut()?.reclaim())?;
        debug_assert_eq!(self.holders[block.0 as usize], 0);
        self.holders[block.0 as usize] = 1;
        Some(block)
    }

    /// Gives back one hold on each of a sequence's blocks, which are in the order of its tokens.
    pub fn release(&mut self, blocks: &[BlockId]) {
        // The last first, so that a longer prefix is reclaimed before the shorter one that it stands on.
        for block in blocks.iter().rev() {
            let holders = &mut self.holders[block.0 as usize];
            assert!(*holders > 0, "block {} was released more often than it was taken", block.0);
            *holders -= 1;
            if *holders == 0 && !self.cache.as_mut().is_some_and(|cache| cache.rest(*block)) {
                self.free.push(*block);
            }
        }
    }

    /// Takes hold of the cached blocks that are the longest beginning of `tokens`, whole blocks only, and never all of
    /// `tokens`: the last one has to be computed for its logits.
    pub fn take_prefix(&mut self, scope: &Scope, tokens: &[u32]) -> Vec<BlockId> {
        let Some(cache) = &mut self.cache else { return Vec::new() };
        let usable = tokens.len().saturating_sub(1) / BLOCK_TOKENS * BLOCK_TOKENS;
        let found = cache.find(scope, &tokens[..usable]);
        for block in &found {
            self.holders[block.0 as usize] += 1;
        }
        found
    }

    /// Makes the computed block `blocks[index]` known under the `BLOCK_TOKENS` tokens that it holds; all blocks before it
    /// must have been published. Where the same content is known already, the sequence goes over to that block, bit for
    /// bit the same, and its own is freed.
    pub fn publish(&mut self, scope: &Scope, blocks: &mut [BlockId], index: usize, tokens: &[u32]) {
        let Some(cache) = &mut self.cache else { return };
        let parent = index.checked_sub(1).map(|before| blocks[before]);
        let (own, known) = (blocks[index], cache.insert(scope, parent, tokens, blocks[index]));
        if known != own {
            self.holders[known.0 as usize] += 1;
            blocks[index] = known;
            self.release(&[own]);
        }
    }

    /// Every block in exactly one state, and every block of a sequence held. For tests.
    #[cfg(test)]
    pub fn check(&self, held: &[&[BlockId]]) {
        let mut holders = vec![0; self.total()];
        held.iter().flat_map(|blocks| blocks.iter()).for_each(|block| holders[block.0 as usize] += 1);
        assert_eq!(holders, self.holders);
        let in_use = holders.iter().filter(|n| **n > 0).count();
        assert_eq!(in_use + self.free() + self.idle(), self.total());
        assert!(self.free.iter().all(|block| holders[block.0 as usize] == 0));
        if let Some(cache) = &self.cache {
            cache.check(&holders);
        }
    }
}

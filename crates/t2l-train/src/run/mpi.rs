//! [`Ranks`] over MPI.

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::{Equivalence, Root};

use super::ranks::Ranks;
use crate::TrainError;

/// Most values in one message: MPI counts them in 32 bits.
const AT_ONCE: usize = 1 << 26;

/// All processes of the MPI job. By MPI's default, a process that cannot be reached ends the job.
pub struct MpiRanks {
    world: SimpleCommunicator,
    /// MPI ends with it.
    _universe: Universe,
}

impl MpiRanks {
    pub fn start() -> Result<Self, TrainError> {
        // Only the loop's thread calls MPI; others multiply matrices and hear signals.
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, threading) = started.ok_or_else(|| refused("MPI was started before"))?;
        if threading < Threading::Funneled {
            return Err(refused("this MPI cannot be used in a program with threads"));
        }
        Ok(Self { world: universe.world(), _universe: universe })
    }

    /// Summed at rank 0 and sent out from there: a plain all-reduce may round differently on every rank.
    fn sum<T: Equivalence + Copy>(&self, values: &mut [T]) {
        let root = self.world.process_at_rank(0);
        for values in values.chunks_mut(AT_ONCE) {
            if self.world.rank() == 0 {
                let ours = values.to_vec();
                root.reduce_into_root(&ours[..], &mut values[..], SystemOperation::sum());
            } else {
                root.reduce_into(&values[..], SystemOperation::sum());
            }
            root.broadcast_into(&mut values[..]);
        }
    }
}

fn refused(reason: &str) -> TrainError {
    TrainError::Ranks { reason: reason.to_owned() }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        usize::try_from(self.world.rank()).unwrap_or_default()
    }

    fn size(&self) -> usize {
        usize::try_from(self.world.size()).unwrap_or(1)
    }

    fn sum_gradients(&self, values: &mut [f32]) -> Result<(), TrainError> {
        self.sum(values);
        Ok(())
    }

    fn sum_numbers(&self, values: &mut [f64]) -> Result<(), TrainError> {
        self.sum(values);
        Ok(())
    }

    fn abort(&self) {
        self.world.abort(1);
    }
}

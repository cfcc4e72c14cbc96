//! Processes that share the batches of one run.

use std::ops::Range;

use crate::TrainError;

/// The processes of one run, from the point of view of one of them.
///
/// All take the same steps from the same state; each computes a [`Share`] of every batch's gradients, and the sum over
/// all is what steps the parameters. Rank 0 alone writes files.
pub trait Ranks {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Adds up over all processes, value by value. All end with the same bits, or their parameters would drift apart.
    ///
    /// # Errors
    /// A process that cannot be reached.
    fn sum_gradients(&self, values: &mut [f32]) -> Result<(), TrainError>;

    /// As [`Ranks::sum_gradients`], for a few numbers.
    ///
    /// # Errors
    /// A process that cannot be reached.
    fn sum_numbers(&self, values: &mut [f64]) -> Result<(), TrainError>;

    /// Ends all processes, because this one cannot go on and the others would wait for it for ever.
    fn abort(&self);
}

/// A process on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum_gradients(&self, _: &mut [f32]) -> Result<(), TrainError> {
        Ok(())
    }

    fn sum_numbers(&self, _: &mut [f64]) -> Result<(), TrainError> {
        Ok(())
    }

    fn abort(&self) {}
}

/// Which part of every batch a process computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The process's number, from 0.
    pub rank: usize,
    /// How many processes there are, at least 1.
    pub of: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, of: 1 };

    /// The share of so many rows. Shares follow each other and make up the whole.
    ///
    /// ```
    /// use t2l_train::Share;
    ///
    /// assert_eq!(Share { rank: 0, of: 3 }.rows(8), 0..2);
    /// assert_eq!(Share { rank: 1, of: 3 }.rows(8), 2..5);
    /// assert_eq!(Share { rank: 2, of: 3 }.rows(8), 5..8);
    /// ```
    pub fn rows(self, rows: usize) -> Range<usize> {
        let of = self.of.max(1);
        self.rank * rows / of..(self.rank + 1) * rows / of
    }
}

/// The processes that `mpirun` or `srun` started together with this one; alone where neither did.
///
/// # Errors
/// Started as one of several by a program without the cargo feature `mpi`, or MPI does not start.
pub fn ranks() -> Result<Box<dyn Ranks>, TrainError> {
    let started_by = |name: &&str| std::env::var_os(name).is_some();
    let Some(sign) = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"].into_iter().find(started_by) else {
        return Ok(Box::new(Alone));
    };
    together(sign)
}

#[cfg(feature = "mpi")]
fn together(_: &str) -> Result<Box<dyn Ranks>, TrainError> {
    Ok(Box::new(super::mpi::MpiRanks::start()?))
}

#[cfg(not(feature = "mpi"))]
fn together(sign: &str) -> Result<Box<dyn Ranks>, TrainError> {
    // A rank says nothing of how many there are; Slurm, which sets it, does.
    let sizes: &[&str] = if sign == "PMIX_RANK" { &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"] } else { &[sign] };
    if sizes.iter().any(|name| std::env::var(name).is_ok_and(|size| size == "1")) {
        return Ok(Box::new(Alone));
    }
    let reason =
        format!("{sign} is set, so this is one of several processes, but the program was built without feature mpi");
    Err(TrainError::Ranks { reason })
}

"""What ``validation.statistics`` rests on: exact laws, draws from everything that draws, and how to judge them."""

mod owner;
mod transcripts;

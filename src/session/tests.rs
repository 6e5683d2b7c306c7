mod machine;
mod owner;
mod transcripts;

"""Take a trained policy away: adapter or merged model, with its card. May import models, plan, records and report."""
